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
}

impl Rule {
    /// All of them, with the names that the simulations know them by.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Fence, "fence"),
        (Self::ClaimAgain, "claim-again"),
        (Self::PullBeforeServing, "pull-before-serving"),
        (Self::InterestInClaims, "interest-in-claims"),
        (Self::StayUntilCovered, "stay-until-covered"),
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
