//! What is told to those who watch the node: numbers and states, never what was looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LocalService;
use crate::clock;
use crate::engine::Shared;
use crate::meters::Meters;
use crate::net::survey::Survey;
use crate::net::tls::{Connections, Tls};
use crate::policy::breaker::Tally;
use crate::policy::in_force::Standing as PolicyStanding;
use crate::replica::ids::{MemberId, TimeMs};
use crate::wire::local as l;

impl LocalService {
    /// What is read without asking the engine.
    pub fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }

    /// What is counted of the work.
    pub fn meters(&self) -> &Arc<Meters> {
        self.shared().meters()
    }

    /// The state of the node, as `Status` answers it.
    pub fn status_now(&self) -> l::StatusResponse {
        self.state()
    }

    /// What the list and the review queue hold, in numbers. It may go through a short list for this.
    pub fn survey(&self) -> Arc<Survey> {
        self.surveys.now(self.shared(), self.tripped())
    }

    /// The policy in force.
    pub fn policy(&self) -> &PolicyStanding {
        &self.policy
    }

    /// What the flood breaker did.
    pub fn breaker_tally(&self) -> Tally {
        self.breaker.tally(clock::now())
    }

    /// Files that wait for a worker or are being hashed.
    pub fn hashing_under_way(&self) -> usize {
        self.hashing()
    }

    /// The connections to peers, where the node has any.
    pub fn peer_lines(&self) -> Option<&(Tls, Connections)> {
        self.lines.as_ref()
    }

    /// The ends of the certificates that connected peers show.
    pub fn peer_certificates(&self) -> BTreeMap<MemberId, TimeMs> {
        self.certificates()
    }
}
