#!/bin/sh
# Installs lockprof from this folder, or takes it away again. Starts nothing.
set -eu

usage() {
	cat <<'EOF'
Usage: install.sh [--prefix DIR] [--destdir DIR] [--uninstall]

  --prefix DIR    where programs and data go [default: /usr/local]
  --destdir DIR   put in front of every path, to fill an image
  --uninstall     remove what was installed with the same --prefix

The configuration is /etc/lockprof/lockprof.toml. One that is there stays as it
is, and the new default is put beside it as lockprof.toml.new.
EOF
}

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

prefix=/usr/local
destdir=
uninstall=no
while [ $# -gt 0 ]; do
	case $1 in
	--prefix | --destdir)
		[ $# -ge 2 ] || fail "$1 wants a folder"
		case $2 in
		/*) ;;
		*) fail "$1 wants an absolute path, not '$2'" ;;
		esac
		if [ "$1" = --prefix ]; then prefix=${2%/}; else destdir=${2%/}; fi
		shift 2
		;;
	--uninstall)
		uninstall=yes
		shift
		;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		usage >&2
		fail "does not know '$1'"
		;;
	esac
done

here=$(cd "$(dirname "$0")" && pwd)
[ -x "$here/usr/bin/lockprof" ] || fail "there is no usr/bin/lockprof in $here; unpack the whole tarball"
if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
	fail "has to be run as root (sudo $0), or with --destdir"
fi

# Where a file of the tarball goes. zsh looks for completions elsewhere on
# distributions that are not Debian's kin.
place() {
	case $1 in
	usr/share/zsh/vendor-completions/*) echo "$destdir$prefix/share/zsh/site-functions/${1##*/}" ;;
	*) echo "$destdir$prefix/${1#usr/}" ;;
	esac
}

files() {
	(cd "$here" && find usr -type f | sort)
}

systemd() {
	[ -z "$destdir" ] && [ -d /run/systemd/system ]
}

if [ "$uninstall" = yes ]; then
	if systemd; then
		systemctl disable --quiet --now lockprof.socket lockprof.service || true
	fi
	files | while read -r file; do
		rm -f "$(place "$file")"
	done
	for folder in share/lockprof share/doc/lockprof; do
		if [ -d "$destdir$prefix/$folder" ]; then
			find "$destdir$prefix/$folder" -depth -type d -empty -delete
		fi
	done
	if systemd; then systemctl daemon-reload; fi
	echo "removed; /etc/lockprof and the user lockprof are left"
	exit 0
fi

files | while read -r file; do
	to=$(place "$file")
	mode=644
	[ -x "$here/$file" ] && mode=755
	mkdir -p "$(dirname "$to")"
	case $file in
	*.service | *.socket | */provisioning/*.yml | */prometheus.yml)
		# They name the binary and the data by where they are.
		sed "s|/usr/bin/lockprof|$prefix/bin/lockprof|g; s|/usr/share/lockprof|$prefix/share/lockprof|g; s|/usr/share/doc/lockprof|$prefix/share/doc/lockprof|g" \
			"$here/$file" >"$to.new"
		chmod "$mode" "$to.new"
		mv "$to.new" "$to"
		;;
	*)
		# Not over a program that runs: beside it, and then in its place.
		install -m "$mode" "$here/$file" "$to.new"
		mv "$to.new" "$to"
		;;
	esac
done

config=$destdir/etc/lockprof/lockprof.toml
mkdir -p "$destdir/etc/lockprof"
if [ ! -e "$config" ]; then
	install -m 644 "$here/etc/lockprof/lockprof.toml" "$config"
elif ! cmp -s "$here/etc/lockprof/lockprof.toml" "$config"; then
	install -m 644 "$here/etc/lockprof/lockprof.toml" "$config.new"
	echo "$config stays as it is; this version's default is $config.new"
fi

echo "installed below $destdir$prefix"
if systemd; then
	systemd-sysusers "$prefix/lib/sysusers.d/lockprof.conf" ||
		fail "systemd-sysusers made no user; run: useradd --system --user-group --shell /usr/sbin/nologin lockprof"
	systemctl daemon-reload
	if systemctl --quiet is-active lockprof.service; then
		echo "next: systemctl restart lockprof"
	else
		echo "next: systemctl enable --now lockprof"
	fi
elif [ -z "$destdir" ]; then
	echo "next: $prefix/bin/lockprof doctor"
fi
