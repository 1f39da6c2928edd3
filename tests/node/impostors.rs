//! Whoever poses as a member is refused in both directions, and both operators read why.
