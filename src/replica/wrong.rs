//! The obvious alternatives to rules of the protocol, each of which diverges, loses or convicts an honest member.
//!
//! They exist so that the simulator can prove that it would notice (ARCHITECTURE, "Test the tests"). A shipped binary
//! is built without the feature `wrong-rules`: there, [`Rules::break_rule`] is constant and the branches vanish.

/// A rule that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongRule {
    /// Compare heads by place alone: forks stay hidden.
    VectorWithoutHash,
    /// After a fork, keep the branch that was seen first.
    FirstSeenWins,
    /// Refuse blocks from the future for good instead of holding them.
    RejectFuture,
    /// Let an expelled member's logs count as far as they had arrived.
    ExpelOnArrival,
    /// Count quotas in the order of arrival.
    QuotaByArrival,
    /// Publish and acknowledge a block before it is on stable storage.
    PublishBeforeFsync,
    /// Go on in the same log after a backup was restored.
    RestoreAndGoOn,
    /// After a fork nothing counts, whoever attested it.
    VoidFromFork,
    /// Count every member as a voter, also those of one owner.
    VotersAreMembers,
    /// Read suspensions from what counts after suspensions.
    SuspendedReadAfterSuspension,
    /// Leave erased records on disk.
    KeepErased,
    /// Attest what is held, also where it contradicts an earlier word.
    AttestAnyChain,
}

impl WrongRule {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::VectorWithoutHash,
        Self::FirstSeenWins,
        Self::RejectFuture,
        Self::ExpelOnArrival,
        Self::QuotaByArrival,
        Self::PublishBeforeFsync,
        Self::RestoreAndGoOn,
        Self::VoidFromFork,
        Self::VotersAreMembers,
        Self::SuspendedReadAfterSuspension,
        Self::KeepErased,
        Self::AttestAnyChain,
    ];
}

/// The rules a replica lives by: the protocol's, but for at most one in the simulator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    #[cfg(feature = "wrong-rules")]
    wrong: Option<WrongRule>,
}

impl Rules {
    /// The protocol's rules, but for one.
    #[cfg(feature = "wrong-rules")]
    pub fn but_for(wrong: Option<WrongRule>) -> Self {
        Self { wrong }
    }

    /// Whether `rule` stands in the place of the protocol's.
    #[cfg(feature = "wrong-rules")]
    pub fn break_rule(self, rule: WrongRule) -> bool {
        self.wrong == Some(rule)
    }

    /// Whether `rule` stands in the place of the protocol's: never, in a shipped binary.
    #[cfg(not(feature = "wrong-rules"))]
    pub fn break_rule(self, _rule: WrongRule) -> bool {
        false
    }
}
