//! `ExportEvidence`: what an evidence file is made of, piece by piece, read from the store on a thread of its own.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{bad_field, of_store, place_of, refuse};
use crate::clock;
use crate::engine::Shared;
use crate::evidence::export::{self, ExportError, Holding, RECORDS_MAX};
use crate::replica::ids::BlockId;
use crate::wire::local as l;

/// Pieces that wait for the caller: few, since a piece may have some MiB.
const AHEAD: usize = 4;

/// The answer.
pub(super) type Pieces = BoxStream<'static, Result<l::EvidencePiece, Status>>;

/// Begins to read, and hands over what the caller takes.
pub(super) fn export(shared: &Arc<Shared>, request: &l::ExportEvidenceRequest) -> Result<Pieces, Status> {
    let places = places(request)?;
    let holding = Holding::of(&shared.replica(), clock::now());
    let (sender, receiver) = mpsc::channel(AHEAD);
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || read(&shared, &holding, &places, &sender));
    Ok(ReceiverStream::new(receiver).boxed())
}

fn places(request: &l::ExportEvidenceRequest) -> Result<Vec<(BlockId, u32)>, Status> {
    if request.records.len() > RECORDS_MAX {
        return Err(bad_field("records", format!("got {}, at most {RECORDS_MAX}", request.records.len())));
    }
    request.records.iter().map(|record| place_of(record, "records.member_id")).collect()
}

fn read(
    shared: &Shared,
    holding: &Holding,
    places: &[(BlockId, u32)],
    sender: &mpsc::Sender<Result<l::EvidencePiece, Status>>,
) {
    let (hour, digest) = holding.view;
    let first = l::EvidencePiece {
        blocks: holding.blocks(),
        view_hour_ms: hour.0,
        view_digest: digest.map(|digest| digest.to_vec().into()).unwrap_or_default(),
        ..Default::default()
    };
    if sender.blocking_send(Ok(first)).is_err() {
        return; // the caller is gone
    }
    let mut sink = |kind: crate::evidence::format::Kind, bytes: Vec<u8>| {
        let piece = l::EvidencePiece { kind: u32::from(kind.letter()), item: bytes.into(), ..Default::default() };
        sender.blocking_send(Ok(piece)).is_ok()
    };
    let exported = if places.is_empty() {
        export::bundle(holding, shared.store(), &mut sink)
    } else {
        export::receipt(holding, shared.store(), places, &mut sink)
    };
    if let Err(error) = exported {
        // If nobody listens any more, nobody needs to know.
        drop(sender.blocking_send(Err(refused(&error))));
    }
}

fn refused(error: &ExportError) -> Status {
    match error {
        ExportError::Store(error) => of_store(error),
        ExportError::NotHeld(_) | ExportError::NoRecord { .. } => {
            refuse(Code::NotFound, "NOT_FOUND", error.to_string())
        }
        ExportError::Gone(_) | ExportError::Moved(_) | ExportError::Stopped => {
            refuse(Code::DataLoss, "STORE", error.to_string())
        }
    }
}
