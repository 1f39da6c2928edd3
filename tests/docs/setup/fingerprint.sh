# What somebody was told by telephone.
FORUM=$(staydown charter show invite.sdi --json | sed 's/.*"forum_id":"\([0-9a-f]*\)".*/\1/')
