# PID 1 of a node: puts directories of its own in place of the machine's, and then reaps.
set -eu
state=$1 name=$2
hostname "$name"
mount -t proc proc /proc
echo 1 >/proc/sys/net/ipv4/ip_forward
# kubelet would set these for the whole machine; here it finds them set.
while read -r setting value; do
    file=$state/sysctl/${setting##*/}
    echo "$value" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
done <<SETTINGS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
# With the disk of the cache, which lies below.
mount --rbind "$state/lib" /var/lib
mount --bind "$state/log" /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/netns
# As on any node: what a privileged pod mounts is seen by the node and by other pods.
mount --make-rshared /
: >"$state/up"
while :; do
    sleep 3600 &
    wait $! || true
done
