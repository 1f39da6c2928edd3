//! ALLOW, REVIEW, BLOCK: what a company does about a match. By which rules is its own business: `src/policy/`.

/// What our rules make of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against it.
    Allow,
    /// A person should look.
    Review,
    /// Our rules say no.
    Block,
}

impl Verdict {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Review => "REVIEW",
            Self::Block => "BLOCK",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_have_names() {
        assert_eq!([Verdict::Allow, Verdict::Review, Verdict::Block].map(Verdict::name), ["ALLOW", "REVIEW", "BLOCK"]);
    }
}
