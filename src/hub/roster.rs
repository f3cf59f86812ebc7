//! Who is in a room: the users, and not the connections.

use std::collections::HashMap;

use crate::protocol::{ConnectionId, PresentUser, RoomName, UserId};

use super::Hub;
use super::presence::{Data, by_name};
use super::room::Inside;

/// Who is in a room.
#[derive(Debug, Default)]
pub struct Present {
    /// How many users, where that is known: of a room without presence it is not, if it is large.
    pub users: Option<usize>,
    /// How many connections.
    pub connections: usize,
    /// The users by name, if there are not too many.
    pub members: Option<Vec<PresentUser>>,
}

impl Hub {
    /// Who is in a room, if there are no more than `max` users in it.
    pub fn users_in(&self, room: &RoomName, max: usize) -> Present {
        self.room(room).map_or_else(Present::nobody, |room| self.present(room.inside(Some(max)), max))
    }

    /// Who is in a room, for one of its members: as many as the room's `presence_limit` says. Where
    /// the room has presence, the list and the announcements after it fit together.
    pub fn list_for_member(&self, room: &RoomName) -> Present {
        self.room(room).map_or_else(Present::nobody, |room| self.present(room.inside(None), room.max_listed()))
    }

    fn present(&self, inside: Inside, max: usize) -> Present {
        match inside {
            Inside::Users(connections, users, members) => {
                Present { users: Some(users), connections, members: members.map(by_name) }
            }
            Inside::Connections(connections, None) => Present { users: None, connections, members: None },
            Inside::Connections(connections, Some(list)) => {
                let list = self.by_user(list);
                let users = Some(list.len());
                Present { users, connections, members: Some(list).filter(|list| list.len() <= max).map(by_name) }
            }
        }
    }

    /// The users of connections, and what they show.
    fn by_user(&self, connections: Vec<(ConnectionId, Data)>) -> Vec<PresentUser> {
        let mut users: HashMap<UserId, PresentUser> = HashMap::new();
        for (id, data) in connections {
            let Some(member) = self.connection(id) else { continue };
            let data = data.or_else(|| member.profile().cloned());
            let user = users.entry(member.user().clone());
            let user = user.or_insert_with_key(|user| PresentUser { user: user.clone(), connections: 0, data: None });
            user.connections += 1;
            user.data = data.or_else(|| user.data.take());
        }
        users.into_values().collect()
    }
}

impl Present {
    fn nobody() -> Self {
        Self { users: Some(0), connections: 0, members: Some(Vec::new()) }
    }
}
