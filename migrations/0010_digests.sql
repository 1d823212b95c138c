-- What waits of a room for one mail is found by its device.
create index pushes_by_mail on pushes (device_id, room_id, seq) where platform = 5 and due_at is not null;
