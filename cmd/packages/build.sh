#!/bin/sh
# build.sh OUT: builds cawrm as .deb, .rpm and tarball into the folder OUT. The same commit gives the same bytes.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
GO=${GO:-go}
NFPM=${NFPM:-$GO run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0}
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
version=${VERSION:-$(git describe --tags --dirty 2>/dev/null | sed 's/^v//; s/-/+/; s/-/./g' || true)}
: "${version:=0.0.0+git$commit}"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
ARCH=${ARCH:-$($GO env GOARCH)}
PKGVERSION=$version
umask 022 # nothing of who builds, where and how
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
TREE=$tree
export SOURCE_DATE_EPOCH ARCH PKGVERSION TREE

CGO_ENABLED=0 GOARCH=$ARCH $GO build -trimpath -buildvcs=false \
	-ldflags "-s -w -buildid= -X main.version=$version -X main.commit=$commit" -o "$tree/cawrm" ./cmd/cawrm
# What the program prints of itself is printed by one of this machine's architecture.
self=$tree/cawrm
if [ "$ARCH" != "$($GO env GOHOSTARCH)" ]; then
	self=$tree/self
	GOARCH= CGO_ENABLED=0 $GO build -ldflags "-X main.version=$version -X main.commit=$commit" -o "$self" ./cmd/cawrm
fi
mkdir "$tree/man"
"$self" manual man "$tree/man" >/dev/null
gzip -9n "$tree"/man/*
"$self" completion bash >"$tree/cawrm.bash"
"$self" completion zsh >"$tree/_cawrm"
"$self" completion fish >"$tree/cawrm.fish"
find "$tree" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +

sed "s|\${TREE}|$tree|" cmd/packages/nfpm.yaml >"$tree/nfpm.yaml" # nfpm knows variables in some places only
for kind in deb rpm; do
	$NFPM package --config "$tree/nfpm.yaml" --packager $kind --target "$out/" >&2
done

name=cawrm-$version-linux-$ARCH
mkdir -p "$tree/$name"
cp -r "$tree/cawrm" "$tree/man" "$tree/cawrm.bash" "$tree/_cawrm" "$tree/cawrm.fish" README.md CHANGELOG.md LICENSE SECURITY.md \
	cmd/packages/systemd cmd/packages/sysusers.conf cmd/packages/tmpfiles.conf cmd/packages/cawrm.toml "$tree/$name"
tar -C "$tree" --sort=name --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
(cd "$out" && sha256sum ./*.deb ./*.rpm ./*.tar.gz | sed 's| \./| |' >SHA256SUMS)
ls -1 "$out"
