//! The calls of other services. The types of the wire stop here.

use std::sync::Arc;

use parlance_proto::{
    event::user_event,
    notify::{
        self as wire, CountsReply, CountsRequest, DeviceList, GetSettingsRequest, ListDevicesRequest, PutSettingsReply,
        PutSettingsRequest, RegisterDeviceRequest, RegisteredDevice, RemoveDeviceReply, RemoveDeviceRequest,
        TestDeviceReply, TestDeviceRequest, VapidReply, VapidRequest, WhyReply, WhyRequest,
        notify_server::{Notify, NotifyServer},
    },
};
use service_kit::{
    fault::Fault,
    id::{RoomId, SessionId, UserId},
};
use tonic::{Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::{
    App,
    devices::{self, Device, New, Platform, Registered},
    error::Error,
    notifications::{self, Notification},
    settings::{self, Privacy, Settings},
    why::{self, Planned},
};

/// Notifications of a page when the caller does not say, and at most.
const PAGE: (usize, usize) = (50, 200);

/// The routes of the service.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    Routes::new(NotifyServer::new(Calls(Arc::clone(app))))
}

struct Calls(Arc<App>);

#[tonic::async_trait]
impl Notify for Calls {
    async fn counts(&self, _request: Request<CountsRequest>) -> Result<Response<CountsReply>, Status> {
        let counts = &self.0.counts;
        Ok(Response::new(CountsReply { batches: counts.batches(), messages: counts.messages() }))
    }

    async fn register_device(
        &self,
        request: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisteredDevice>, Status> {
        let request = request.into_inner();
        let new = New {
            user: UserId::from_wire(&request.user, "user")?,
            session: SessionId::from_wire(&request.session, "session")?,
            platform: platform(request.platform())?,
            name: request.name,
            target: request.target,
            topic: request.topic,
            sandbox: request.sandbox,
            p256dh: request.p256dh.into(),
            auth: request.auth.into(),
        };
        let Registered { device: registered, added, secret } = devices::register(&self.0, new).await?;
        Ok(Response::new(RegisteredDevice { device: Some(device(registered)), added, secret }))
    }

    async fn list_devices(&self, request: Request<ListDevicesRequest>) -> Result<Response<DeviceList>, Status> {
        let user = UserId::from_wire(&request.into_inner().user, "user")?;
        let items = devices::list(&self.0, user).await?.into_iter().map(device).collect();
        Ok(Response::new(DeviceList { items }))
    }

    async fn remove_device(
        &self,
        request: Request<RemoveDeviceRequest>,
    ) -> Result<Response<RemoveDeviceReply>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        let device = Uuid::from_slice(&request.device).map_err(|_| Fault::bad_request("device: is no id"))?;
        devices::remove(&self.0, user, device).await?;
        Ok(Response::new(RemoveDeviceReply {}))
    }

    async fn test_device(&self, request: Request<TestDeviceRequest>) -> Result<Response<TestDeviceReply>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        let device = Uuid::from_slice(&request.device).map_err(|_| Fault::bad_request("device: is no id"))?;
        devices::test(&self.0, user, device).await?;
        Ok(Response::new(TestDeviceReply {}))
    }

    async fn vapid(&self, _request: Request<VapidRequest>) -> Result<Response<VapidReply>, Status> {
        let public_key = self.0.vapid()?.public().to_vec().into();
        Ok(Response::new(VapidReply { public_key }))
    }

    async fn get_settings(&self, request: Request<GetSettingsRequest>) -> Result<Response<wire::Settings>, Status> {
        let user = UserId::from_wire(&request.into_inner().user, "user")?;
        Ok(Response::new(wire_settings(settings::get(&self.0, user).await?)))
    }

    async fn put_settings(&self, request: Request<PutSettingsRequest>) -> Result<Response<PutSettingsReply>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        settings::put(&self.0, user, settings_of(request.settings.unwrap_or_default())).await?;
        Ok(Response::new(PutSettingsReply {}))
    }

    async fn list_notifications(
        &self,
        request: Request<wire::ListNotificationsRequest>,
    ) -> Result<Response<wire::NotificationList>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        let before = request.before.map(|before| notification(&before, "cursor")).transpose()?;
        let limit = match request.limit {
            0 => PAGE.0,
            limit => usize::try_from(limit).unwrap_or(PAGE.1).min(PAGE.1),
        };
        let list = notifications::list(&self.0.db, user, before, limit).await.map_err(Error::from)?;
        let items = list.items.iter().map(Notification::to_wire).collect();
        Ok(Response::new(wire::NotificationList { items, more: list.more, unread: list.unread }))
    }

    async fn read_notifications(
        &self,
        request: Request<wire::ReadNotificationsRequest>,
    ) -> Result<Response<wire::ReadNotificationsReply>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        let up_to = notification(&request.up_to, "up_to")?;
        notifications::read(&self.0.db, user, up_to).await.map_err(Error::from)?;
        self.0.teller.tell(vec![(user, user_event::Kind::NotificationsRead(request.up_to))]);
        Ok(Response::new(wire::ReadNotificationsReply {}))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyReply>, Status> {
        let request = request.into_inner();
        let (room, user) = (RoomId::from_wire(&request.room, "room")?, UserId::from_wire(&request.user, "user")?);
        let planned = why::why(&self.0, room, request.seq, user).await?;
        let no_device = planned.is_empty() && why::had_no_device(&self.0, user, request.at).await?;
        let decisions = planned.into_iter().filter_map(decision).collect();
        Ok(Response::new(WhyReply { decisions, no_device }))
    }
}

fn notification(id: &[u8], field: &str) -> Result<Uuid, Fault> {
    Uuid::from_slice(id).map_err(|_| Fault::bad_request(format!("{field}: is no id")))
}

/// What was decided, when something was.
fn decision(planned: Planned) -> Option<wire::Decision> {
    Some(wire::Decision {
        device: planned.device_id.as_bytes().to_vec().into(),
        platform: wire_platform(planned.platform).into(),
        outcome: planned.outcome?.word().to_owned(),
        reason: planned.reason?,
        detail: planned.detail,
        at: planned.at,
    })
}

fn wire_settings(settings: Settings) -> wire::Settings {
    let privacy = match settings.privacy {
        Privacy::Full => wire::Privacy::Full,
        Privacy::Sender => wire::Privacy::Sender,
        Privacy::Nothing => wire::Privacy::None,
    };
    let minute = |minute: Option<i16>| minute.map(|minute| minute.unsigned_abs().into());
    let quiet_hours = minute(settings.quiet_from).zip(minute(settings.quiet_to)).zip(settings.time_zone);
    let quiet_hours = quiet_hours.map(|((from, to), time_zone)| wire::QuietHours { from, to, time_zone });
    wire::Settings { privacy: privacy.into(), quiet_hours }
}

fn settings_of(settings: wire::Settings) -> Settings {
    let privacy = match settings.privacy() {
        wire::Privacy::Unspecified | wire::Privacy::Full => Privacy::Full,
        wire::Privacy::Sender => Privacy::Sender,
        wire::Privacy::None => Privacy::Nothing,
    };
    // A number too large for a minute stays one, and is refused as such.
    let minute = |minute: u32| i16::try_from(minute).unwrap_or(i16::MAX);
    match settings.quiet_hours {
        None => Settings { privacy, ..Settings::default() },
        Some(quiet) => Settings {
            privacy,
            quiet_from: Some(minute(quiet.from)),
            quiet_to: Some(minute(quiet.to)),
            time_zone: Some(quiet.time_zone),
        },
    }
}

fn device(device: Device) -> wire::Device {
    wire::Device {
        id: device.id.as_bytes().to_vec().into(),
        platform: wire_platform(device.platform).into(),
        name: device.name,
        created_at: device.created_at,
    }
}

fn platform(platform: wire::Platform) -> Result<Platform, Fault> {
    Ok(match platform {
        wire::Platform::Webpush => Platform::WebPush,
        wire::Platform::Fcm => Platform::Fcm,
        wire::Platform::Apns => Platform::Apns,
        wire::Platform::Webhook => Platform::Webhook,
        wire::Platform::Email => Platform::Email,
        wire::Platform::Unspecified => return Err(Fault::bad_request("platform: is missing")),
    })
}

fn wire_platform(platform: Platform) -> wire::Platform {
    match platform {
        Platform::WebPush => wire::Platform::Webpush,
        Platform::Fcm => wire::Platform::Fcm,
        Platform::Apns => wire::Platform::Apns,
        Platform::Webhook => wire::Platform::Webhook,
        Platform::Email => wire::Platform::Email,
    }
}
