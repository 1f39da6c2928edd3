//! Messages of the peer service to replica values and back, refusing on the way in (STYLE 3).

use bytes::Bytes;
use thiserror::Error;

use crate::replica::exchange::{Greeting, Tick};
use crate::replica::heads::{Have, HaveError};
use crate::replica::ids::{CharterHash, ForumId, TimeMs};
use crate::replica::proto;

/// The wire version that this release speaks; `Hello` carries the range.
pub const WIRE_VERSION: u32 = 1;
/// Largest frame we accept, told in `HelloReply`.
pub const FRAME_MAX: u32 = 1 << 20;

/// Why a message is refused: the sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum WireError {
    #[error("{0} is missing or has the wrong length")]
    Field(&'static str),
    #[error(transparent)]
    Have(#[from] HaveError),
    #[error("message is of forum {0}, ours is another")]
    Forum(String),
    #[error("peer speaks wire versions {0} to {1}, we speak {WIRE_VERSION}")]
    Version(u32, u32),
}

/// The forum a message names must be ours.
///
/// # Errors
/// [`WireError::Forum`].
pub fn check_forum(forum: &[u8], ours: ForumId) -> Result<(), WireError> {
    if forum == ours.0 {
        Ok(())
    } else {
        Err(WireError::Forum(crate::replica::ids::hex(&forum[..forum.len().min(32)])))
    }
}

/// What we say of ourselves.
pub fn hello(forum: ForumId, greeting: &Greeting) -> proto::HelloRequest {
    proto::HelloRequest {
        wire_min: WIRE_VERSION,
        wire_max: WIRE_VERSION,
        forum_id: Bytes::copy_from_slice(&forum.0),
        charter_version: greeting.charter_version,
        charter_hash: Bytes::copy_from_slice(&greeting.charter_hash.0),
        semantics_max: greeting.semantics_max,
        time_ms: greeting.time.0,
        software: concat!("staydown/", env!("CARGO_PKG_VERSION")).into(),
        instance: greeting.instance,
    }
}

/// What a peer says of itself, without its heads.
///
/// # Errors
/// [`WireError`] when it is of another forum or speaks no version of ours.
pub fn check_hello(hello: &proto::HelloRequest, forum: ForumId) -> Result<(), WireError> {
    check_forum(&hello.forum_id, forum)?;
    if hello.wire_min > WIRE_VERSION || hello.wire_max < WIRE_VERSION {
        return Err(WireError::Version(hello.wire_min, hello.wire_max));
    }
    Ok(())
}

/// The answer to a greeting; `greeting.second_copy` is what we tell the caller of itself.
pub fn hello_reply(forum: ForumId, greeting: &Greeting) -> proto::HelloReply {
    proto::HelloReply {
        me: Some(hello(forum, greeting)),
        heads: greeting.have.to_proto(),
        max_frame: FRAME_MAX,
        second_copy: greeting.second_copy,
    }
}

/// A peer's answer to our greeting.
///
/// # Errors
/// [`WireError`].
pub fn greeting(reply: &proto::HelloReply, forum: ForumId) -> Result<Greeting, WireError> {
    let me = reply.me.as_ref().ok_or(WireError::Field("me"))?;
    check_hello(me, forum)?;
    Ok(Greeting {
        charter_version: me.charter_version,
        charter_hash: CharterHash::from_slice(&me.charter_hash).ok_or(WireError::Field("charter_hash"))?,
        semantics_max: me.semantics_max,
        time: TimeMs(me.time_ms),
        have: Have::from_proto(&reply.heads)?,
        instance: me.instance,
        second_copy: reply.second_copy,
    })
}

/// A sign of life as it travels.
pub fn tick_to_proto(tick: &Tick) -> proto::Tick {
    proto::Tick {
        time_ms: tick.time.0,
        have_digest: Bytes::copy_from_slice(&tick.have_digest),
        charter_hash: Bytes::copy_from_slice(&tick.charter_hash.0),
        view_hour: tick.view_hour.0,
        view_digest: tick.view_digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
        disputes_digest: tick.disputes_digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
    }
}

/// A sign of life as it was received.
///
/// # Errors
/// [`WireError::Field`].
pub fn tick(tick: &proto::Tick) -> Result<Tick, WireError> {
    let digest = |bytes: &Bytes, field| match &bytes[..] {
        [] => Ok(None),
        digest => digest.try_into().map(Some).map_err(|_wrong| WireError::Field(field)),
    };
    Ok(Tick {
        time: TimeMs(tick.time_ms),
        have_digest: tick.have_digest[..].try_into().map_err(|_wrong| WireError::Field("have_digest"))?,
        charter_hash: CharterHash::from_slice(&tick.charter_hash).ok_or(WireError::Field("charter_hash"))?,
        view_hour: TimeMs(tick.view_hour),
        view_digest: digest(&tick.view_digest, "view_digest")?,
        disputes_digest: digest(&tick.disputes_digest, "disputes_digest")?,
    })
}
