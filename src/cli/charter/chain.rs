//! The charter chain that this node holds, whether it runs or not.

use prost::Message as _;

use crate::cli::client::Node;
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Invocation, init};
use crate::config::Config;
use crate::replica::charter::CharterChain;
use crate::replica::ids::ForumId;
use crate::replica::proto;
use crate::store;
use crate::wire::files::{self, Invitation};
use crate::wire::local;

/// The charter chain of this node: asked of it if it runs, read from its folder if not.
pub(in crate::cli) async fn current_chain(at: &Invocation) -> Result<CharterChain, Failure> {
    let config = at.config()?;
    let unreachable = match Node::connect(&config.local.socket).await {
        Ok(node) => return running_chain(&node).await,
        Err(unreachable) => unreachable,
    };
    if !config.data.join(init::INVITATION_FILE).exists() {
        let failure = unreachable.culprit(format!("and {} holds no joined node", config.data.display()));
        return Err(failure.fix("staydown run, or name a file: --into, --after, --from"));
    }
    stopped_chain(&config)
}

/// The charter chain that a running node holds.
pub(in crate::cli) async fn running_chain(node: &Node) -> Result<CharterChain, Failure> {
    let forum = node.status(local::StatusRequest {}).await?.forum_id;
    let forum = ForumId::from_slice(&forum).ok_or_else(|| Failure::new(Exit::Failed, "the node names no forum"))?;
    let mut charters: Vec<proto::SignedCharter> = Vec::new();
    loop {
        let from_version = charters.len() as u64 + 1;
        let page = node.charters(local::GetChartersRequest { from_version }).await?.charters;
        if page.is_empty() || charters.len() > files::CHARTERS_MAX {
            break;
        }
        for charter in page {
            let charter = proto::SignedCharter::decode(charter);
            charters.push(charter.map_err(|error| Failure::new(Exit::Verification, error.to_string()))?);
        }
    }
    Ok(files::verify(forum, &charters)?)
}

/// The chain in the folder of a node that does not run. The invitation alone may be old, and a charter that is drawn
/// up over an old one forks the chain: therefore what the node has learnt since is read too.
pub(in crate::cli) fn stopped_chain(config: &Config) -> Result<CharterChain, Failure> {
    let _lock = store::lock_directory(&config.data)?;
    let invitation = Invitation::read(&config.data.join(init::INVITATION_FILE))?;
    let mut chain = invitation.verify(invitation.forum)?;
    let replica = config.data.join("replica");
    if !replica.is_dir() {
        return Ok(chain);
    }
    let failed = |error: store::StoreError| {
        Failure::new(Exit::Storage, error.to_string()).fix("staydown run (it heals what can be healed)")
    };
    let opened = store::Store::open(&replica).map_err(failed)?;
    for (_, bytes) in opened.store.charters().map_err(failed)? {
        let charter = proto::SignedCharter::decode(&bytes[..]);
        chain.apply(charter.map_err(|error| Failure::new(Exit::Storage, error.to_string()))?)?;
    }
    Ok(chain)
}
