//! Evidence files (docs/verify.md): what others can check without this node.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use tonic::Status;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, Place, unfit};
use super::entries::Named;
use super::given::Binary;
use super::log::RecordPlace;
use crate::evidence::export::RECORDS_MAX;
use crate::evidence::format::{Claim, Counts, Evidence, Kind, Writer};
use crate::replica::block::Frame;
use crate::replica::ids::TimeMs;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// What an evidence file is called.
const MEDIA_TYPE: &str = "application/vnd.staydown.evidence";

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default()
        .routes(routes!(export_bundle))
        .routes(routes!(export_entry_receipt))
        .routes(routes!(export_record_receipt))
}

/// Everything that this node holds, as one file that anybody can verify.
///
/// An answer that ends without its last chunk is not complete, and does not verify.
#[utoipa::path(
    get,
    path = "/v1/evidence",
    operation_id = "export_bundle",
    tag = "evidence",
    security(("token" = ["lookup"])),
    responses((
        status = 200,
        description = "A bundle: check it with `staydown verify`.",
        body = inline(Binary),
        content_type = "application/vnd.staydown.evidence",
    )),
)]
async fn export_bundle(asking: Asking) -> Result<Response, Problem> {
    export(&asking, Evidence::Bundle, Vec::new()).await
}

/// All that is said of an entry, with who attested it, as one file that anybody can verify.
#[utoipa::path(
    get,
    path = "/v1/entries/{type}/{value}/evidence",
    operation_id = "export_entry_receipt",
    tag = "evidence",
    security(("token" = ["lookup"])),
    params(Named),
    responses((
        status = 200,
        description = "A receipt: check it with `staydown verify`.",
        body = inline(Binary),
        content_type = "application/vnd.staydown.evidence",
    )),
)]
async fn export_entry_receipt(asking: Asking, Place(named): Place<Named>) -> Result<Response, Problem> {
    let request = l::GetEntryRequest { signal: Some(named.into()), receipts: false, ..Default::default() };
    let entry = asking.node().get_entry(asking.with(request)).await?.into_inner().entry.unwrap_or_default();
    let place = |said: l::Said| l::GetRecordRequest {
        member_id: said.member_id,
        log_no: said.log_no,
        seq: said.seq,
        index: said.index,
    };
    let records: Vec<_> = entry.said.into_iter().take(RECORDS_MAX).map(place).collect();
    if records.is_empty() {
        return Err(unfit(StatusCode::NOT_FOUND, "NOT_FOUND", "nobody says anything of it"));
    }
    export(&asking, Evidence::Receipt, records).await
}

/// One record, with who attested it, as one file that anybody can verify.
#[utoipa::path(
    get,
    path = "/v1/records/{member_id}/{log_no}/{seq}/{index}/evidence",
    operation_id = "export_record_receipt",
    tag = "evidence",
    security(("token" = ["lookup"])),
    params(RecordPlace),
    responses((
        status = 200,
        description = "A receipt: check it with `staydown verify`.",
        body = inline(Binary),
        content_type = "application/vnd.staydown.evidence",
    )),
)]
async fn export_record_receipt(asking: Asking, Place(place): Place<RecordPlace>) -> Result<Response, Problem> {
    export(&asking, Evidence::Receipt, vec![place.into()]).await
}

type Pieces = BoxStream<'static, Result<l::EvidencePiece, Status>>;

async fn export(asking: &Asking, what: Evidence, records: Vec<l::GetRecordRequest>) -> Result<Response, Problem> {
    let request = l::ExportEvidenceRequest { records };
    let mut pieces: Pieces = asking.node().export_evidence(asking.with(request)).await?.into_inner();
    let first = pieces.next().await.transpose()?.unwrap_or_default();
    // The first item tells whether there will be more: what is not held here is refused before the answer begins.
    let item = pieces.next().await.transpose()?;
    let view = match what {
        Evidence::Receipt => (TimeMs(0), [0; 32]),
        Evidence::Bundle => {
            let why = "the node derives its list again: ask in a while";
            let absent = || unfit(StatusCode::SERVICE_UNAVAILABLE, "COUNTING", why);
            (TimeMs(first.view_hour_ms), first.view_digest[..].try_into().map_err(|_absent| absent())?)
        }
    };
    let pieces = stream::iter(item.map(Ok)).chain(pieces).boxed();
    let name = if what == Evidence::Bundle { "bundle.sde" } else { "receipt.sde" };
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, MEDIA_TYPE.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, Body::from_stream(file(pieces, what, view)?)).into_response())
}

/// A file on its way out.
struct Draft {
    pieces: Pieces,
    writer: Writer<Buffer>,
    buffer: Buffer,
    what: Evidence,
    claim: Claim,
}

/// The bytes of an evidence file, as its pieces come.
fn file(
    pieces: Pieces,
    what: Evidence,
    view: (TimeMs, [u8; 32]),
) -> Result<impl Stream<Item = io::Result<Bytes>>, Problem> {
    let buffer = Buffer::default();
    let bug = |error: io::Error| unfit(StatusCode::INTERNAL_SERVER_ERROR, "BUG", &error.to_string());
    let writer = Writer::begin(buffer.clone(), what).map_err(bug)?;
    let claim = Claim { counts: Counts::default(), view };
    let draft = Draft { pieces, writer, buffer, what, claim };
    Ok(stream::try_unfold(Some(draft), |draft| async move {
        let Some(mut draft) = draft else { return Ok(None) };
        match draft.pieces.next().await {
            Some(piece) => {
                let piece = piece.map_err(io::Error::other)?;
                draft.take(&piece)?;
                Ok(Some((draft.buffer.taken(), Some(draft))))
            }
            None => {
                let Draft { writer, buffer, claim, .. } = draft;
                writer.end(&claim)?;
                Ok(Some((buffer.taken(), None)))
            }
        }
    }))
}

impl Draft {
    fn take(&mut self, piece: &l::EvidencePiece) -> io::Result<()> {
        let kind = u8::try_from(piece.kind).ok().and_then(Kind::from_letter).filter(|kind| *kind != Kind::Trailer);
        let kind = kind.ok_or_else(|| io::Error::other(format!("a piece of kind {}", piece.kind)))?;
        self.claim.counts.add(kind);
        if self.what == Evidence::Bundle && kind == Kind::Block {
            let frame = Frame::decode(piece.item.clone()).map_err(|error| io::Error::other(error.to_string()))?;
            self.claim.counts.inner += frame.slots.len() as u64;
        }
        self.writer.item(kind, &piece.item)
    }
}

/// What is written and not sent yet.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn taken(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
