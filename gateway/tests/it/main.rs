//! What clients see of the gateway at its edge: frames, problems, forms. What needs real services is in `e2e`.

mod fake_chat;
mod fake_rooms;
mod frames_in;
mod frames_out;
mod rest;
mod rest_calls;
mod tokens;
