"""What Schemathesis does not ask."""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    # In a form nothing has a type, so that whatever stands in a part of it is a file.
    is_form = case.media_type == "multipart/form-data" and case.meta is not None and case.meta.generation.mode.is_negative
    # It reads the names of tokens in answers, and would revoke its own: everything after that would be refused.
    is_own = case.operation.label == "DELETE /v1/tokens/{name}" and case.path_parameters.get("name") == "schemathesis"
    return not is_form and not is_own
