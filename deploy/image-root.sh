#!/bin/sh
# Puts a program and what it is linked with into a folder that can be the root of a container:
#   deploy/image-root.sh PROGRAM FOLDER
# No shell, no package manager, nobody but the node's user. Run as root, for the folders of that user.
set -eu
program=$1
root=$2
user=10001

mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/etc" "$root/tmp"
# As Debian has it, so that the folder may also be laid over Debian.
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
install -m 0755 "$program" "$root/usr/bin/staydown"
# Libraries and the loader, each under the name by which the program asks for it.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
printf 'staydown:x:%s:%s:staydown node:/var/lib/staydown:/nonexistent\n' $user $user >"$root/etc/passwd"
printf 'staydown:x:%s:\n' $user >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
for folder in /var/lib/staydown /exchange; do
    install -d -m 0700 -o $user -g $user "$root$folder"
done
