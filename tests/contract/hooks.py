"""What Schemathesis does not ask: in a form nothing has a type, so that whatever stands in a part of it is a file."""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    return case.media_type != "multipart/form-data" or case.meta is None or not case.meta.generation.mode.is_negative
