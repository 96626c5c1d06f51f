# When the allocation ends, in seconds since 1970. Slurm 22.05 sets no SLURM_JOB_END_TIME: then it is asked, once.
job_end=${SLURM_JOB_END_TIME:-}
if [[ -z $job_end ]]; then
  facts=$(SLURM_TIME_FORMAT=standard timeout 60 scontrol show job --oneliner "$SLURM_JOB_ID") || facts=
  [[ $facts =~ \ EndTime=([0-9][^ ]*) ]] && job_end=$(date -d "${BASH_REMATCH[1]}" +%s)
fi
[[ -n $job_end ]] && export EBBTIDE_JOB_END=$job_end
