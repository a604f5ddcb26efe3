#!/usr/bin/env bash
# A SLURM of two nodes in namespaces of its own, in which a command runs; nothing is left behind.
#
#   unshare --net --uts --mount --pid --fork --kill-child --mount-proc \
#     bash slurm_cluster.sh FOLDER COMMAND...
#
# Each slurmd has a network and a host name of its own. Partition "here" has them; "large" has 64
# nodes of 8 GPUs that are never started, for `sbatch --test-only`.
set -euo pipefail
folder=$1
shift
mkdir -p "$folder/state" "$folder/n1" "$folder/n2"
printf '127.0.0.1 localhost\n10.213.0.1 head\n10.213.0.11 n1\n10.213.0.12 n2\n' >"$folder/hosts"
echo 'NodeName=c[1-64] Name=gpu Count=8' >"$folder/gres.conf"
cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=head
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%h
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%h.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
GresTypes=gpu
ReturnToService=2
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=3600
NodeName=n[1-2] CPUs=1 State=UNKNOWN
NodeName=c[1-64] CPUs=8 Gres=gpu:8 State=CLOUD
PartitionName=here Nodes=n[1-2] Default=YES
PartitionName=large Nodes=c[1-64]
END
export SLURM_CONF=$folder/slurm.conf
mount --make-rprivate /
mount --bind "$folder/hosts" /etc/hosts
hostname head
ip link set lo up
ip link add bridge0 type bridge
ip address add 10.213.0.1/24 dev bridge0
ip link set bridge0 up
slurmctld -D -c >"$folder/slurmctld.log" 2>&1 &
for n in 1 2; do
  unshare --net --uts bash -c "
    hostname n$n
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
    ip link set lo up
    ip address add 10.213.0.1$n/24 dev eth0
    ip link set eth0 up
    exec slurmd -D -f '$SLURM_CONF'" >"$folder/slurmd-$n.log" 2>&1 &
  node=$!
  ip link add "port$n" type veth peer name "peer$n"
  ip link set "port$n" master bridge0 up
  until [ "$(readlink /proc/$node/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
  ip link set "peer$n" netns "$node" name eth0
done
for _ in $(seq 300); do
  [ "$(sinfo --noheader --partition=here --states=idle --format=%D 2>/dev/null)" = 2 ] && break
  sleep 0.1
done
"$@"
