"""A cluster's facts, a job held against them, and a first site file from them."""

from __future__ import annotations

from hpc.cluster_facts import ClusterFacts, NodeGroup, Partition, ask_cluster
from hpc.first_site import site_text
from hpc.request_check import check_request

__all__ = ["ClusterFacts", "NodeGroup", "Partition", "ask_cluster", "check_request", "site_text"]
