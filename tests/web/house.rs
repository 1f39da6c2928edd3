//! A node with its web listener, in this process, and the people and programs who have tokens for it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use staydown::access::token::Wanted;
use staydown::access::{Access, Role, Scope, Scopes};
use staydown::clock;
use staydown::config::{Config, WebConfig};
use staydown::net::local::LocalService;
use staydown::node;
use staydown::replica::ids::TimeMs;
use staydown::replica::proto::Charter;
use staydown::taxonomy::TaxonomyFile;
use staydown::web::{self, Limits, Web};
use staydown::wire::files::Invitation;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::forum::Forum;
use crate::wire::{Answer, post};

/// One node, that serves one or more listeners.
pub struct House {
    pub at: SocketAddr,
    pub service: LocalService,
    pub forum: Forum,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl House {
    /// The only member of its forum, with the limits that a shipped node has, except that tests may ask faster.
    pub async fn open() -> Self {
        Self::with(1, |_| {}, fast()).await
    }

    /// A member of a forum whose other members never come, under the charter that `change` makes.
    pub async fn with(members: usize, change: impl FnOnce(&mut Charter), limits: Limits) -> Self {
        Self::named(members, change, limits, "").await
    }

    /// The same, where the charter names the taxonomy of this file, unless that is empty.
    pub async fn named(members: usize, change: impl FnOnce(&mut Charter), limits: Limits, taxonomy: &str) -> Self {
        let mut forum = Forum::found(members);
        forum.next_charter(|charter| {
            change(charter);
            if !taxonomy.is_empty() {
                charter.taxonomy = TaxonomyFile::parse(taxonomy).unwrap().named.to_string();
            }
        });
        let data = forum.companies[0].data.clone();
        let (charters, taxonomy) = (forum.charters.clone(), taxonomy.to_owned().into());
        let invitation = Invitation { forum: forum.forum, charters, taxonomy };
        invitation.write(&data.join(node::FORUM_FILE)).unwrap();
        let mut config = Config::default_in(data);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.peer.listen = listener.local_addr().unwrap();
        config.web.listen = None;
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            node::run_on(listener, config, ready, until(stopped)).await.unwrap_or_else(|e| panic!("the node: {e}"));
        });
        let service = is_ready.await.expect("the node starts").service;
        let mut house = Self { at: SocketAddr::from(([127, 0, 0, 1], 0)), service, forum, stop, tasks };
        house.at = house.serve(&WebConfig::default(), limits).await;
        house
    }

    /// One more listener at the same node.
    pub async fn serve(&mut self, config: &WebConfig, limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, stopped) = (listener.local_addr().unwrap(), self.stop.subscribe());
        let web = Web::new(self.service.clone(), config, limits);
        self.tasks.spawn(async move { web::serve(listener, None, web, until(stopped)).await.unwrap() });
        at
    }

    /// Our own member id, as it is written.
    pub fn member(&self) -> String {
        self.forum.companies[0].id.to_string()
    }

    pub fn access(&self) -> &Arc<Access> {
        self.service.access()
    }

    /// A program's token.
    pub fn token(&self, name: &str, scopes: &[Scope]) -> String {
        self.make(name, None, Scopes::of(scopes))
    }

    /// A person's token.
    pub fn person(&self, name: &str, role: Role) -> String {
        self.make(name, Some(role), Scopes::default())
    }

    fn make(&self, name: &str, role: Option<Role>, scopes: Scopes) -> String {
        let now = clock::now();
        let wanted = Wanted { name: name.into(), role, scopes, expires: now.plus(TimeMs::DAY_MS) };
        self.access().make_token(wanted, now).unwrap().0.reveal().to_owned()
    }

    /// Signs in with a token, as the login page does.
    pub async fn sign_in(&self, token: &str) -> Browser {
        let answer = sign_in_at(self.at, token).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        let (key, _) = answer.session_cookie().unwrap();
        let csrf = self.access().session(&key, clock::now()).unwrap().csrf;
        Browser { key, csrf }
    }

    /// Stops the node in order.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

pub async fn sign_in_at(at: SocketAddr, token: &str) -> Answer {
    post("/login").of_our_page(at).form(&[("token", token), ("next", "/")]).to(at).await
}

/// A browser that is signed in.
pub struct Browser {
    pub key: String,
    pub csrf: String,
}

/// The limits of a shipped node, but for how often a stranger may ask: a test is many strangers at once.
pub fn fast() -> Limits {
    let many = NonZeroU32::new(100_000).unwrap();
    Limits {
        requests_per_s: many,
        requests_burst: many,
        strangers_per_s: many,
        strangers_burst: many,
        ..Limits::default()
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    stopped.wait_for(|stopped| *stopped).await.ok();
}
