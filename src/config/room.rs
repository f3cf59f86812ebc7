//! What holds for a room itself, whoever is in it.

/// What holds for one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomTraits {
    /// How many connections may be in it; `usize::MAX` for no limit.
    pub max_members: usize,
    /// Whether its members are told who comes and goes.
    pub presence: bool,
    /// How many users its members are told of by name; of more, only the number. It also bounds
    /// the list that a member gets who asks for it.
    pub presence_limit: usize,
}

impl Default for RoomTraits {
    fn default() -> Self {
        Self { max_members: usize::MAX, presence: false, presence_limit: 100 }
    }
}
