# A forum of three companies on this machine: acme where the program looks by itself, bolt and cyan in folders. Each node
# has a founder's key beside it, and there are pictures in samples/.
acme="$HOME/.local/share/staydown"
staydown demo --samples samples
for name in acme bolt cyan; do staydown charter key "founder-$name.pem" --no-passphrase; done
staydown charter found --name "Example Forum" --threshold 2 --out draft.sdc \
  --founder founder-acme.pem.pub founder-bolt.pem.pub founder-cyan.pem.pub
staydown init --founding draft.sdc --name acme --group Acme --jurisdiction FR --endpoint 127.0.0.1:7700 --out acme.sdj
staydown --data bolt init --founding draft.sdc --name bolt --group Bolt --jurisdiction GB --endpoint 127.0.0.1:7710 --out bolt.sdj
staydown --data cyan init --founding draft.sdc --name cyan --group Cyan --jurisdiction DE --endpoint 127.0.0.1:7720 --out cyan.sdj
staydown charter admit acme.sdj bolt.sdj cyan.sdj --role FULL --into draft.sdc
for name in acme bolt; do staydown charter sign draft.sdc --key "founder-$name.pem" --yes; done
FORUM=$(staydown charter invite --from draft.sdc --out invite.sdi)
# A join without a terminal needs no file of its own afterwards: run is enough.
for data in "$acme" bolt cyan; do
    staydown --data "$data" join invite.sdi --forum "$FORUM" >"$data.log" 2>&1 &
done
for data in "$acme" bolt cyan; do
    until grep -q '^Joined\.' "$data.log"; do sleep 0.05; done
done
staydown submit samples/poster-02.jpg --label propaganda --wait-peers 2
