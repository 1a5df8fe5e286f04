#!/bin/bash
# Runs in the machine: /dev/vda is a volume that the host serves and mirrors, with a PostgreSQL cluster on ext4.
#
#   postgres.sh UID GID write    numbered rows, one a transaction, beside pgbench, until the machine is killed; each
#                                number is told when its COMMIT was answered
#   postgres.sh UID GID check    the database opens, is sound, and has every row of /lab/told
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

DATA=/fs/ext4/data
mkdir -p /run /tmp
chmod 1777 /tmp
echo "postgres:x:$1:$2::/tmp:/bin/sh" >>/etc/passwd
echo "postgres:x:$2:" >>/etc/group
enter ext4 vda

sql() { psql -X -h /tmp -p 5999 -U postgres -qAt "$@" postgres; }

su postgres -s /bin/bash -c "exec postgres -D $DATA" >/run/postgres.log 2>&1 &
SERVER=$!
for _ in $(seq 600); do
	sql -c 'select 1' >/dev/null 2>&1 && break
	kill -0 $SERVER || break
	sleep 0.2
done
sql -c 'select 1' >/dev/null

case $3 in
write)
	pgbench -h /tmp -p 5999 -U postgres -n -c 2 -T 100000 postgres >/run/pgbench.log 2>&1 &
	n=0
	while n=$((n + 1)); do echo "insert into acknowledged values ($n) returning $n;"; done | sql >/dev/virtio-ports/told
	;;
check)
	sql -c 'select n from acknowledged' >/run/rows
	if grep -vxFf /run/rows /lab/told; then
		echo "are missing: their COMMIT was answered"
		exit 1
	fi
	step "$(wc -l </run/rows) rows, $(sql -c 'select count(*) from pgbench_history') transactions of pgbench"
	[ "$(sql -c 'select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)')" = t ]
	pg_amcheck -h /tmp -p 5999 -U postgres --install-missing --heapallindexed postgres
	step "sound"
	kill -INT "$(head -1 $DATA/postmaster.pid)"
	wait $SERVER
	umount /fs/ext4
	sound ext4 vda
	;;
esac
