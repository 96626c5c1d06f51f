# The verdict of task 0: line 1 is requeue or end, line 2 all nodes that the next start leaves out, line 3 the jobs of a
# chain that come next. Both may be empty.
verdict=(none)
[[ -r $EBBTIDE_SLURM_DIR/verdict ]] && mapfile -t verdict <"$EBBTIDE_SLURM_DIR/verdict"
failed=$((code == 0 ? 1 : code))

within_60_s() { # not timeout, which dies of Slurm's SIGTERM and takes its child along
  local tenths=0
  "$@" &
  while ((tenths++ < 600)) && kill -0 $! 2>/dev/null; do sleep 0.1; done
  kill -KILL $! 2>/dev/null
  wait $!
}

patiently() { # a controller that restarts answers again soon
  within_60_s "$@" || { sleep 10 && within_60_s "$@"; } || { sleep 20 && within_60_s "$@"; }
}

partitions() { # of this job: a line for each, with the number of nodes that the job's components need there
  [[ -n ${facts:-} ]] || facts=$(patiently scontrol show job --oneliner "$SLURM_JOB_ID")
  awk '
    function value(name) { return match($0, " " name "=[^ ]*") ? substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 2) : "" }
    value("Partition") != "" {
      key = value("Partition") " " (value("Features") ~ /^[A-Za-z0-9_.&-]+$/ ? value("Features") : "(null)")
      key = key " " ($0 ~ / (TresPerNode|TresPerJob|TresPerTask|Gres)=[^ ]*gpu/ ? "gpu" : "any")
      needed[key] += value("NumNodes") + 0
    }
    END { for (key in needed) print key, needed[key] }' <<<"$facts"
}

too_few_without() { # nodes: says so and succeeds, if the job could never start without them; their list is emptied then
  local partition features card needed left
  while read -r partition features card needed; do
    left=$(patiently sinfo --noheader --Node --partition="$partition" --format="%N %f %G" | sort -u |
      awk -v out="$(scontrol show hostnames "$1" | tr '\n' ' ')" -v features="$features" -v card="$card" '
        BEGIN { split(out, names, " "); for (i in names) gone[names[i]]; wanted = split(features, all, "&") }
        NF {
          known = 1
          fits = !($1 in gone) && !seen[$1]++ && (card == "any" || $3 ~ /gpu/)
          if (features != "(null)") for (i = 1; i <= wanted; i++) if (("," $2 ",") !~ ("," all[i] ",")) fits = 0
          left += fits
        }
        END { if (known) print left + 0 }')
    if [[ -n $left ]] && ((left < needed)); then
      echo "ebbtide: without $1 partition $partition has $left nodes that fit, the job needs $needed: no node is left out" >&2
      return 0
    fi
  done < <(partitions)
  return 1
}

leave_out_in() { # jobs or components; in each of them, beside what was left out before
  local id nodes=$excluded_nodes${excluded_nodes:+${verdict[1]:+,}}${verdict[1]:-}
  [[ -n ${verdict[1]:-} && $# -gt 0 ]] || return 0
  if too_few_without "$nodes"; then nodes=$excluded_nodes; fi
  for id; do
    patiently scontrol update "JobId=$id" "ExcNodeList=$nodes" ||
      echo "ebbtide: could not leave out $nodes in job $id" >&2
  done
}

case ${verdict[0]:-none} in
  end)
    # shellcheck disable=SC2086 # a job is a word
    leave_out_in ${verdict[2]:-}
    exit "$code"
    ;;
  requeue) ;;
  *)
    echo "ebbtide: srun ended with code $code and task 0 left no verdict: see $EBBTIDE_SLURM_DIR" >&2
    exit "$failed"
    ;;
esac
if [[ $may_requeue == no ]]; then
  echo "ebbtide: the run is not finished; this job does not requeue itself, the next one goes on from here" >&2
  exit "$failed"
fi

trap '' TERM # what Slurm ends a requeued job with: there are nodes to leave out first
facts=$(patiently scontrol show job --oneliner "$SLURM_JOB_ID")
restarts=0
[[ $facts =~ \ Restarts=([0-9]+) ]] && restarts=${BASH_REMATCH[1]}
if ((restarts > ${SLURM_RESTART_COUNT:-0})); then
  echo "ebbtide: Slurm has requeued the job by itself" >&2
elif [[ -n $facts && $facts != *" JobState=RUNNING "* && $facts != *" Reason=TimeLimit "* ]]; then
  echo "ebbtide: the job was cancelled and stays so: not requeued" >&2
  exit "$failed"
elif [[ -z $facts ]] || ! patiently scontrol requeue "$SLURM_JOB_ID"; then
  echo "ebbtide: the run is not finished and requeueing failed: submit it again" >&2
  exit "$failed"
fi
leave_out_in "${component_ids[@]}"
sleep 600 # until Slurm ends this script
exit "$failed"
