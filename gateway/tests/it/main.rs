//! What clients see of the gateway at its edge: frames, problems, forms; and what it makes of what its services say and
//! fail to say. What needs real services is in `e2e`.

mod attach;
mod deaf;
mod directory;
mod fake_chat;
mod fake_rooms;
mod frames_in;
mod frames_out;
mod repair;
mod rest;
mod rest_calls;
mod sockets;
mod stage;
mod tokens;
mod uplink;
