//! Rules of the cores that can be switched off, to see that a check of the simulations then fails.
//! Only builds with `--cfg mutants` can do so; in all others [`without`] is `false` at compile time.

/// A rule that can be switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rule {
    /// A promise is refused if a higher one was given.
    Fence = 1,
    /// A slot that was lost to a higher promise is claimed again after a pause.
    ClaimAgain,
    /// A claimant pulls what others hold before it serves.
    PullBeforeServing,
    /// A claimant is told the interest of gateways before it serves, and they compare it at once
    /// when it does.
    InterestInClaims,
    /// A leaving node stays until others have what it holds.
    StayUntilCovered,
    /// Nothing is acknowledged before the promised number of nodes holds it.
    AllCopies,
    /// A repeated operation is answered only when enough nodes hold it.
    DedupOfHeld,
    /// As many nodes must hold what is acknowledged as are configured, however few are seen.
    FixedCopies,
    /// Only a node that may serve claims.
    ClaimWhenServing,
    /// A stream's epoch changes with the first publication after a change of owner.
    NewEpoch,
    /// An epoch names the incarnation that claimed.
    IncarnationInEpoch,
    /// A stream that is made anew has an epoch that no stream had before.
    IndexInEpoch,
    /// A copy isn't dropped because the ring moved.
    KeepStrays,
    /// The owner acknowledges, not the gateway.
    OwnerAcknowledges,
    /// A node whose copies are on their way isn't missing.
    TransferIsAnswer,
    /// An owner shows nothing as current that nobody has confirmed a moment ago.
    ReadLease,
    /// A slot that was won while a holder is missing gives no final verdict on positions.
    NoVerdictWhileIncomplete,
    /// What was taken over with a slot is committed before anything is read.
    SettleFirst,
    /// Of two changes of a user's field the one with the later stamp counts.
    LaterStamp,
    /// Who is away is called offline only after a while.
    WaitForReturn,
    /// What the line has dropped by its bounds isn't appended again.
    Outlived,
    /// What was published with one idempotency key is one message, whoever took it.
    OneMessageAKey,
    /// An operation keeps its number when it is sent again.
    RetryKeepsNumber,
    /// A client isn't shown a publication of another epoch under the epoch that it holds.
    EpochIsTold,
    /// A gateway hands on only what continues what it handed on before.
    ContinuesPosition,
    /// The owner hears that a subscription has ended.
    EndIsTold,
    /// It is remembered what the names of lines stood for that have parted.
    RememberSides,
    /// What a line that parted has dropped is announced to those who follow the other.
    GapIsTold,
    /// A node whose own ticks come late takes nobody for dead.
    SelfDoubt,
    /// Of two lines of a channel that meet, both stay: what one has beyond the other is appended to it.
    BothLinesStay,
    /// Where a position lies depends on its epoch, not on its offset alone.
    EpochInPosition,
}

impl Rule {
    /// All of them, with the names that the simulations know them by.
    pub const ALL: [(Self, &'static str); 31] = [
        (Self::Fence, "fence"),
        (Self::ClaimAgain, "claim-again"),
        (Self::PullBeforeServing, "pull-before-serving"),
        (Self::InterestInClaims, "interest-in-claims"),
        (Self::StayUntilCovered, "stay-until-covered"),
        (Self::AllCopies, "all-copies"),
        (Self::DedupOfHeld, "dedup-of-held"),
        (Self::FixedCopies, "fixed-copies"),
        (Self::ClaimWhenServing, "claim-when-serving"),
        (Self::NewEpoch, "new-epoch"),
        (Self::IncarnationInEpoch, "incarnation-in-epoch"),
        (Self::IndexInEpoch, "index-in-epoch"),
        (Self::KeepStrays, "keep-strays"),
        (Self::OwnerAcknowledges, "owner-acknowledges"),
        (Self::TransferIsAnswer, "transfer-is-answer"),
        (Self::ReadLease, "read-lease"),
        (Self::NoVerdictWhileIncomplete, "no-verdict-while-incomplete"),
        (Self::SettleFirst, "settle-first"),
        (Self::LaterStamp, "later-stamp"),
        (Self::WaitForReturn, "wait-for-return"),
        (Self::Outlived, "outlived"),
        (Self::OneMessageAKey, "one-message-a-key"),
        (Self::RetryKeepsNumber, "retry-keeps-number"),
        (Self::EpochIsTold, "epoch-is-told"),
        (Self::ContinuesPosition, "continues-position"),
        (Self::EndIsTold, "end-is-told"),
        (Self::RememberSides, "remember-sides"),
        (Self::GapIsTold, "gap-is-told"),
        (Self::SelfDoubt, "self-doubt"),
        (Self::BothLinesStay, "both-lines-stay"),
        (Self::EpochInPosition, "epoch-in-position"),
    ];
}

/// Whether a rule is switched off.
#[cfg(not(mutants))]
pub const fn without(_rule: Rule) -> bool {
    false
}

#[cfg(mutants)]
static OFF: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether a rule is switched off.
#[cfg(mutants)]
pub fn without(rule: Rule) -> bool {
    OFF.load(std::sync::atomic::Ordering::Relaxed) == rule as u8
}

/// Switches one rule off for the rest of the process.
#[cfg(mutants)]
pub fn switch_off(rule: Rule) {
    OFF.store(rule as u8, std::sync::atomic::Ordering::Relaxed);
}
