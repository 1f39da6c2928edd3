//! Lookups: is it on the list, who says so, and what do our own rules make of it? What is looked up is stored nowhere.

use axum::Json;
use axum::extract::multipart::{Field, Multipart, MultipartError, MultipartRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Request};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given, unfit, unfit_field};
use super::given::{Binary, SignalGiven, only};
use crate::access::Scope;
use crate::answers::{self, LookedUp};
use crate::net::local::{BULK_MAX, FILES_MAX};
use crate::replica::signal::{Alg, Subject};
use crate::web::Web;
use crate::web::limits::{BODY_BYTES_MAX, UPLOAD_BYTES_MAX};
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Bytes of a batch: the longest hashes, each with its quotation marks and comma.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Characters of a form's field that is no file: a web address, or the digits of a video's frames.
const FORM_TEXT_MAX: usize = 64 << 10;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default()
        .routes(routes!(lookup).layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX)))
        .routes(routes!(lookup_batch).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)))
}

/// All that is known of one item, in any mix of hashes, web addresses and accounts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LookupGiven {
    /// Hashes, addresses and accounts of the one item.
    #[serde(deserialize_with = "only::objects")]
    #[schema(min_items = 1, max_items = 64)]
    signals: Vec<SignalGiven>,
    /// Bits that a picture may differ in.
    #[schema(minimum = 0, maximum = 31)]
    distance_max: Option<u32>,
    /// Of a thousand frames of a video, so many must be near a listed video's; 800 if absent.
    #[schema(minimum = 1, maximum = 1000)]
    share_min_permille: Option<u32>,
    /// Also say of each rule of our policy why it decided or did not.
    #[serde(default)]
    explain: bool,
}

/// The same with files, which are hashed in the node and forgotten.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read field by field; this is its schema")]
struct LookupForm {
    /// Files as they are, of at most 64 MiB all together.
    #[schema(value_type = Vec<Binary>, inline, min_items = 1, max_items = 8)]
    file: Vec<String>,
    /// More signals of the item, as in `sha256:...`.
    #[serde(default)]
    signal: Vec<String>,
    /// Also look the pictures up turned and mirrored, in all eight ways.
    dihedral: Option<bool>,
    /// Bits that a picture may differ in.
    #[schema(minimum = 0, maximum = 31)]
    distance_max: Option<u32>,
    /// Of a thousand frames of a video, so many must be near a listed video's; 800 if absent.
    #[schema(minimum = 1, maximum = 1000)]
    share_min_permille: Option<u32>,
    /// Also say of each rule of our policy why it decided or did not.
    explain: Option<bool>,
}

/// Look one item up.
///
/// As JSON with its hashes, web addresses and accounts, or as a form with files. Nothing of it is stored, logged or sent.
#[utoipa::path(
    post,
    path = "/v1/lookup",
    operation_id = "lookup",
    tag = "list",
    security(("token" = ["lookup"])),
    request_body(content(
        (LookupGiven = "application/json", example = json!({
            "signals": [{ "type": "sha256", "value": "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5" }]
        })),
        (LookupForm = "multipart/form-data"),
    )),
    responses((status = 200, description = "The verdict, and every entry within the threshold.", body = LookedUp)),
)]
async fn lookup(asking: Asking, LookupRequest { request, place }: LookupRequest) -> Answer<LookedUp> {
    let answer = asking.node().lookup(asking.with(request)).await;
    drop(place);
    Ok(Json(answer?.into_inner().into()))
}

/// A lookup in either form. One with files keeps its place until they are hashed.
struct LookupRequest {
    request: l::LookupRequest,
    place: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Web> for LookupRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, web: &Web) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        // Before anything of theirs is read.
        Asking::from_request_parts(&mut parts, web).await?.needs(Scope::Lookup)?;
        let request = Request::from_parts(parts, body);
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_ascii_lowercase();
        if media_type.starts_with("multipart/form-data") {
            let place = web.upload_place()?;
            let form = Multipart::from_request(request, web).await.map_err(|rejection| of_form(&rejection))?;
            return Ok(Self { request: read_form(form).await?, place: Some(place) });
        }
        let mut request = request;
        // The room of files is for files.
        DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
        let Given(given) = Given::<LookupGiven>::from_request(request, web).await?;
        let request = l::LookupRequest {
            signals: given.signals.into_iter().map(l::Signal::from).collect(),
            distance_max: given.distance_max,
            share_min_permille: given.share_min_permille,
            explain: given.explain,
            ..Default::default()
        };
        Ok(Self { request, place: None })
    }
}

fn of_form(rejection: &MultipartRejection) -> Problem {
    unfit(StatusCode::BAD_REQUEST, "FORM", &rejection.body_text())
}

fn of_part(error: &MultipartError) -> Problem {
    unfit(error.status(), "FORM", &error.body_text())
}

async fn read_form(mut form: Multipart) -> Result<l::LookupRequest, Problem> {
    let mut request = l::LookupRequest::default();
    while let Some(field) = form.next_field().await.map_err(|error| of_part(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if request.files.len() >= FILES_MAX {
                return Err(of_field(&name, &format!("there are more than {FILES_MAX} files")));
            }
            request.files.push(field.bytes().await.map_err(|error| of_part(&error))?);
            continue;
        }
        let text = text(field).await?;
        let wrong = |expected: &str| of_field(&name, &format!("got {:?}, expected {expected}", shortened(&text)));
        match name.as_str() {
            "signal" => request.signals.push(l::Signal { r#type: String::new(), value: text }),
            "dihedral" => request.dihedral = text.parse().map_err(|_no_truth| wrong("true or false"))?,
            "explain" => request.explain = text.parse().map_err(|_no_truth| wrong("true or false"))?,
            "distance_max" => {
                request.distance_max = Some(text.parse().map_err(|_no_number| wrong("a number from 0 to 31"))?);
            }
            "share_min_permille" => {
                let number = text.parse().map_err(|_no_number| wrong("a number from 1 to 1000"))?;
                request.share_min_permille = Some(number);
            }
            _ => return Err(of_field(&name, "is no field of a lookup")),
        }
    }
    if request.files.is_empty() {
        return Err(of_field("file", "is missing: look up what has no files as application/json"));
    }
    Ok(request)
}

fn of_field(name: &str, why: &str) -> Problem {
    unfit_field(&shortened(name), why)
}

/// As much of what came in as a message repeats.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| of_part(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FORM_TEXT_MAX {
            let why = format!("a form's field has more than {FORM_TEXT_MAX} bytes");
            return Err(unfit(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", &why));
        }
    }
    String::from_utf8(bytes).map_err(|_no_text| unfit(StatusCode::UNPROCESSABLE_ENTITY, "FORM", "a field is no text"))
}

/// A kind of hash that can be looked up in bulk.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BatchType {
    Pdq,
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl BatchType {
    fn alg(self) -> Alg {
        match self {
            Self::Pdq => Alg::Pdq,
            Self::Md5 => Alg::Md5,
            Self::Sha1 => Alg::Sha1,
            Self::Sha256 => Alg::Sha256,
            Self::Sha512 => Alg::Sha512,
        }
    }
}

/// Many hashes of one type, such as a page of a back-catalogue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchGiven {
    /// Of all of them.
    r#type: BatchType,
    /// Hexadecimal digits, in either case.
    #[schema(min_items = 1, max_items = 10000)]
    hashes: Vec<String>,
    /// Bits that a picture may differ in.
    #[schema(minimum = 0, maximum = 31)]
    distance_max: Option<u32>,
}

/// What a batch of hashes came to.
#[derive(Debug, Serialize, ToSchema)]
struct BatchLookedUp {
    /// How many hashes.
    looked_up: u32,
    /// Those that match, in the order of the request.
    hits: Vec<BatchHit>,
}

/// A hash that matches; the lookup alone shows the entries in full.
#[derive(Debug, Serialize, ToSchema)]
struct BatchHit {
    /// In the request, from 0.
    position: u32,
    /// ALLOW, REVIEW, BLOCK.
    verdict: &'static str,
    /// In shadow mode: what the verdict would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_verdict: Option<&'static str>,
    /// The rule of our policy that decided.
    rule: String,
    /// How many entries.
    matches: u32,
    /// There are more than these.
    truncated: bool,
    /// At most 4, the nearest first.
    nearest: Vec<BatchNear>,
}

/// An entry near a hash.
#[derive(Debug, Serialize, ToSchema)]
struct BatchNear {
    /// In bits.
    distance: u32,
    /// Of the entry, as in `pdq:...`.
    hash: String,
    /// ACTIVE, PROVISIONAL, CONTESTED, ...
    status: String,
}

/// Look many hashes up.
///
/// Only those that match are answered. The flood breaker does not count them: what lies in an archive is nothing that is
/// being uploaded.
#[utoipa::path(
    post,
    path = "/v1/lookup/batch",
    operation_id = "lookup_batch",
    tag = "list",
    security(("token" = ["lookup"])),
    request_body(content = BatchGiven, example = json!({ "type": "md5", "hashes": ["900150983cd24fb0d6963f7d28e17f72"] })),
    responses((status = 200, description = "The hashes that match.", body = BatchLookedUp)),
)]
async fn lookup_batch(asking: Asking, Given(given): Given<BatchGiven>) -> Answer<BatchLookedUp> {
    let alg = given.r#type.alg();
    let digests = digests(alg, &given.hashes)?;
    let request = l::LookupBulkRequest { r#type: alg.name().into(), digests, distance_max: given.distance_max };
    let answer = asking.node().lookup_batch(asking.with(request)).await?.into_inner();
    let hit = |hit: l::BulkHit| batch_hit(alg, &answer.rules, hit);
    Ok(Json(BatchLookedUp { looked_up: answer.looked_up, hits: answer.hits.into_iter().map(hit).collect() }))
}

/// All hashes of a batch, one behind the other.
fn digests(alg: Alg, hashes: &[String]) -> Result<Bytes, Problem> {
    if hashes.is_empty() || hashes.len() > BULK_MAX {
        return Err(of_field("hashes", &format!("has {} entries, 1 to {BULK_MAX} are possible", hashes.len())));
    }
    let length = alg.digest_len().unwrap_or_default();
    let mut digests = Vec::with_capacity(hashes.len() * length);
    for (n, hash) in hashes.iter().enumerate() {
        let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok().filter(|d| d.len() == length);
        let wrong =
            || of_field(&format!("hashes[{n}]"), &format!("expected {} hexadecimal digits for {alg}", 2 * length));
        digests.extend(digest.ok_or_else(wrong)?);
    }
    Ok(digests.into())
}

fn batch_hit(alg: Alg, rules: &[String], hit: l::BulkHit) -> BatchHit {
    let (verdict, shadow) = (hit.verdict(), hit.shadow_verdict());
    let near = |near: l::BulkMatch| BatchNear {
        distance: near.distance,
        hash: Subject::of(alg, &near.digest).to_string(),
        status: near.status,
    };
    BatchHit {
        position: hit.position,
        verdict: answers::verdict(verdict),
        shadow_verdict: (shadow != l::Verdict::Unspecified).then(|| answers::verdict(shadow)),
        rule: rules.get(hit.rule as usize).cloned().unwrap_or_default(),
        matches: hit.matches,
        truncated: hit.truncated,
        nearest: hit.nearest.into_iter().map(near).collect(),
    }
}
