# What the README's examples begin with. Each host has these.

# up waits until the daemon answers, unless it has ended.
up() { until cawrm status >/dev/null 2>&1; do kill -0 "$(cat daemon.pid)" && sleep 0.1; done; }

secret() {
	echo 6f1d3a0c9b5e4f7788aa23cc45ddee01 >/srv/peer.secret
	chmod 600 /srv/peer.secret
}

# again ARGUMENT...: db is served.
again() {
	cawrm serve "${path:-/srv/db.cawrm}" --name db --nbd unix:/run/db.sock --nbd localhost:10809 --peer-secret /srv/peer.secret "$@" &
	echo $! >daemon.pid
	up
}

# copy: db is a mirror here, and awaits its source.
copy() {
	secret
	cawrm create /srv/db.cawrm --mirror
	again --peer :10810
}

# disk SIZE ARGUMENT...: db is a primary here, with 8 MiB of noise.
disk() {
	secret
	cawrm create "${path:-/srv/db.cawrm}" --size "$1" ${capacity:+--capacity "$capacity"}
	shift
	again "$@"
	noise 8M
}

noise() { head -c "$1" /dev/urandom | nbdcopy --flush - 'nbd+unix:///db?socket=/run/db.sock'; }

synced() { until cawrm mirror list db | grep -q synced; do sleep 0.1; done; }

stop() {
	kill "$(cat daemon.pid)"
	wait "$(cat daemon.pid)"
}

# damage CONTAINER CHUNK: what is on the disk for a chunk of the volume is something else.
damage() {
	local at
	at=$(cawrm dump "$1" --lba "$2" | sed -n 's/^ *reference .*(byte \([0-9]*\),.*/\1/p')
	head -c 4096 /dev/urandom | dd of="$1" bs=4096 seek=$((at / 4096)) conv=notrunc status=none
}
