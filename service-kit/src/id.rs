//! Ids that cannot be mixed up, and the topics that the delivery directory knows.

use std::{fmt, str::FromStr};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fault::Fault;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id: UUIDv7, so that rows made together lie together.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Reads an id of a service call.
            ///
            /// # Errors
            /// `bad_request` naming `field` when it is not 16 bytes long.
            pub fn from_wire(bytes: &[u8], field: &str) -> Result<Self, Fault> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| Fault::bad_request(format!("{field}: not a UUID")))
            }

            /// The 16 bytes that service calls and events carry.
            #[must_use]
            pub fn to_wire(self) -> Bytes {
                Bytes::copy_from_slice(self.0.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A person or bot with an account.
    UserId
);
id!(
    /// A room: direct, group or channel.
    RoomId
);
id!(
    /// One login of a user; all its access tokens carry it.
    SessionId
);
id!(
    /// A stored message; rooms order them by `seq`, not by this.
    MessageId
);
id!(
    /// Made by the client for one message: sending it again is the same message.
    ClientId
);
id!(
    /// An uploaded file.
    FileId
);
id!(
    /// One life of a process: a restarted gateway is another boot.
    BootId
);

/// What a gateway can want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Everything that happens in a room.
    Room(RoomId),
    /// A user's own affairs: rooms joined and left, sessions, own cursors.
    User(UserId),
    /// Whether a user is online.
    Presence(UserId),
}

impl Topic {
    /// 17 bytes: the kind, then the id.
    #[must_use]
    pub fn to_wire(self) -> Bytes {
        let (kind, id) = match self {
            Self::Room(room) => (b'r', room.0),
            Self::User(user) => (b'u', user.0),
            Self::Presence(user) => (b'p', user.0),
        };
        let mut bytes = BytesMut::with_capacity(17);
        bytes.put_u8(kind);
        bytes.put_slice(id.as_bytes());
        bytes.freeze()
    }

    /// Reads what `to_wire` wrote.
    ///
    /// # Errors
    /// `bad_request` for anything else.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, Fault> {
        let unreadable = || Fault::bad_request("topic: not a topic");
        let (kind, id) = bytes.split_first().ok_or_else(unreadable)?;
        let id = Uuid::from_slice(id).map_err(|_| unreadable())?;
        match kind {
            b'r' => Ok(Self::Room(RoomId(id))),
            b'u' => Ok(Self::User(UserId(id))),
            b'p' => Ok(Self::Presence(UserId(id))),
            _ => Err(unreadable()),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(id) => write!(f, "room:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Presence(id) => write!(f, "presence:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_survives_the_wire() {
        for topic in
            [Topic::Room(RoomId::generate()), Topic::User(UserId::generate()), Topic::Presence(UserId::generate())]
        {
            assert_eq!(Topic::from_wire(&topic.to_wire()).ok(), Some(topic));
        }
        assert!(Topic::from_wire(b"x").is_err());
        assert!(Topic::from_wire(b"").is_err());
    }
}
