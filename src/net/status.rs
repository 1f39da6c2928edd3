//! One match turns refusals into status codes, so that a reviewer can hold it against PROTOCOL section 14.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::engine::Failed;
use crate::replica::own::Refusal;
use crate::store::StoreError;
use crate::wire::peer::WireError;

/// Domain of the `ErrorInfo` details.
const DOMAIN: &str = "staydown";
/// Trailer that carries the reason.
pub const REASON: &str = "staydown-reason";

/// A status with its reason, in the trailer and as `google.rpc.ErrorInfo`.
pub fn refuse(code: Code, reason: &str, message: impl Into<String>) -> Status {
    with_details(code, reason, message, ErrorDetails::new())
}

/// The same with what to do about it, as `fix` among the metadata of `google.rpc.ErrorInfo`.
pub fn refuse_with_fix(code: Code, reason: &str, message: impl Into<String>, fix: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::from([("fix".to_owned(), fix.into())]));
    finished(code, reason, message, details)
}

/// `INVALID_ARGUMENT` that names the field, as `google.rpc.BadRequest`.
pub fn bad_field(field: impl Into<String>, why: impl Into<String>) -> Status {
    let (field, why) = (field.into(), why.into());
    let message = format!("{field}: {why}");
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, why);
    with_details(Code::InvalidArgument, "FIELD", message, details)
}

/// The same with a reason of its own and what to do about it.
pub fn bad_field_with_fix(
    field: impl Into<String>,
    why: impl Into<String>,
    reason: &str,
    fix: impl Into<String>,
) -> Status {
    let (field, why) = (field.into(), why.into());
    let message = format!("{field}: {why}");
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, why);
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::from([("fix".to_owned(), fix.into())]));
    finished(Code::InvalidArgument, reason, message, details)
}

fn with_details(code: Code, reason: &str, message: impl Into<String>, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::<String, String>::new());
    finished(code, reason, message, details)
}

fn finished(code: Code, reason: &str, message: impl Into<String>, details: ErrorDetails) -> Status {
    let mut status = Status::with_error_details(code, message, details);
    if let Ok(value) = MetadataValue::try_from(reason) {
        status.metadata_mut().insert(REASON, value);
    }
    status
}

/// Our own submission was refused.
pub fn of_refusal(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::NotActive(_) => refuse(Code::PermissionDenied, "NOT_MEMBER", message),
        Refusal::Suspended(_) => refuse(Code::PermissionDenied, "SUSPENDED", message),
        Refusal::RootKey(_) => refuse(Code::FailedPrecondition, "ROOT_KEY", message),
        Refusal::GuardPending => refuse(Code::FailedPrecondition, "GUARD_PENDING", message),
        Refusal::Role(_) => refuse(Code::PermissionDenied, "ROLE", message),
        Refusal::Record(index, why) => bad_field(format!("statements[{index}]"), *why),
        Refusal::Guard(index, why) => {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation(format!("statements[{index}].signal"), why.to_string());
            with_details(Code::InvalidArgument, why.code(), message, details)
        }
        Refusal::Quota { .. } => refuse(Code::ResourceExhausted, "RATE", message),
        Refusal::TooLarge(_) => refuse(Code::ResourceExhausted, "TOO_LARGE", message),
        Refusal::OutboxFull => refuse(Code::ResourceExhausted, "OUTBOX", message),
        Refusal::LogsUsedUp(_) | Refusal::LogBytes(_) => refuse(Code::FailedPrecondition, "LOG_LIMIT", message),
        Refusal::Semantics(_) => refuse(Code::FailedPrecondition, "UPGRADE", message),
    }
}

/// The storage failed.
pub fn of_failure(failed: &Failed) -> Status {
    refuse(Code::DataLoss, "STORE", failed.to_string())
}

/// The store could not be read.
pub fn of_store(error: &StoreError) -> Status {
    refuse(Code::DataLoss, "STORE", error.to_string())
}

/// A peer's message was refused.
pub fn of_wire(error: &WireError) -> Status {
    let (code, reason) = match error {
        WireError::Forum(_) => (Code::FailedPrecondition, "FORUM_MISMATCH"),
        WireError::Version(..) => (Code::FailedPrecondition, "WIRE_VERSION"),
        WireError::Field(_) | WireError::Have(_) => (Code::InvalidArgument, "FRAME"),
    };
    refuse(code, reason, error.to_string())
}
