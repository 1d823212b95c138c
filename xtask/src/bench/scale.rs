//! How large the loads are: as they are asked for, or small for a look.

/// The size of everything.
pub(super) struct Scale {
    /// Of each measured run.
    pub(super) seconds: u16,
    /// Offered sends a second.
    pub(super) rates: &'static [u32],
    /// Where the search for a knee begins, and its bound.
    pub(super) knee: (u32, u32),
    pub(super) fanout_members: u32,
    pub(super) read_messages: u32,
    pub(super) read_rooms: u32,
    /// Both sizes, and how long processor time is counted.
    pub(super) idle: (u32, u32, u32),
    pub(super) storm_sessions: u32,
}

impl Scale {
    /// As asked for.
    pub(super) fn full(seconds: u16) -> Self {
        Self {
            seconds,
            rates: &[1_000, 5_000, 8_000, 12_000, 16_000, 20_000],
            knee: (4_000, 40_000),
            fanout_members: 1_000,
            read_messages: 1_000_000,
            read_rooms: 500,
            idle: (2_000, 15_000, 25),
            storm_sessions: 5_000,
        }
    }

    /// A smoke run.
    pub(super) fn quick() -> Self {
        Self {
            seconds: 3,
            rates: &[500, 2_000],
            knee: (500, 1_000),
            fanout_members: 50,
            read_messages: 10_000,
            read_rooms: 50,
            idle: (200, 1_000, 2),
            storm_sessions: 200,
        }
    }
}
