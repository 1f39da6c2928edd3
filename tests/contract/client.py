"""Uses the client that was generated from the document: client.py FOLDER URL TOKEN

Submits a hash, looks it up, reads its entry, and is refused as the document says.
"""

import sys

folder, url, token = sys.argv[1:]
sys.path.insert(0, folder)

from forum_client import AuthenticatedClient  # noqa: E402
from forum_client.api.list_ import lookup, show_entry  # noqa: E402
from forum_client.api.opinions import submit  # noqa: E402
from forum_client.models import (  # noqa: E402
    Entry,
    LookedUp,
    LookupGiven,
    Problem,
    SignalGiven,
    SignalType,
    Stance,
    StatementGiven,
    SubmissionGiven,
    Submitted,
)

client = AuthenticatedClient(base_url=url, token=token)
digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee77"
signal = SignalGiven(type_=SignalType.SHA256, value=digest)

before = lookup.sync(client=client, body=LookupGiven(signals=[signal]))
assert isinstance(before, LookedUp) and before.verdict == "ALLOW" and before.matches == [], before

statement = StatementGiven(signal=signal, stance=Stance.SUBMIT, labels=["propaganda"])
said = submit.sync(client=client, body=SubmissionGiven(statements=[statement]))
assert isinstance(said, Submitted) and said.state == "DURABLE" and len(said.receipts) == 1, said

after = lookup.sync(client=client, body=LookupGiven(signals=[signal]))
assert isinstance(after, LookedUp) and after.verdict != "ALLOW", after
assert [match.entry.signal.value for match in after.matches] == [digest], after

entry = show_entry.sync(SignalType.SHA256, digest, client=client, receipts=True)
assert isinstance(entry, Entry) and entry.status == "ACTIVE" and entry.receipts == said.receipts, entry

absent = show_entry.sync(SignalType.SHA256, digest[::-1], client=client)
assert isinstance(absent, Problem) and absent.status == 404 and absent.reason == "NOT_FOUND", absent

stranger = AuthenticatedClient(base_url=url, token="sdt_nobody")
refused = lookup.sync(client=stranger, body=LookupGiven(signals=[signal]))
assert isinstance(refused, Problem) and refused.status == 401, refused
