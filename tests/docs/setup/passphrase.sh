# Nobody is there to type one.
(umask 077; echo 'gravel otter canoe lamp' > passphrase)
export STAYDOWN_PASSPHRASE_FILE="$PWD/passphrase"
