//! Obeying a fence: shut out, remember on disk, let in, and only then say so.

use std::sync::{Arc, PoisonError};

use potemkin_proto::v1::{Fence, FenceDone};
use potemkin_session::ids::{Epoch, SessionId};

use super::Control;
use potemkin_session::gate::FenceOrder;

impl Control {
    /// The answer to a fence. When it has no error, nobody below the epoch can reach the device any more, in this run of the host or in a
    /// later one.
    pub(super) async fn fence(&self, fence: Fence) -> FenceDone {
        self.meters.fences.increment(1);
        let result = self.obey(&fence).await;
        let Fence {
            device_id, epoch, ..
        } = fence;
        let error = result.err().unwrap_or_default();
        if error.is_empty() {
            tracing::info!(device = device_id, epoch, "fenced");
        } else {
            tracing::warn!(device = device_id, epoch, error, "fence refused");
        }
        FenceDone {
            device_id,
            epoch,
            error,
        }
    }

    async fn obey(&self, fence: &Fence) -> Result<(), String> {
        let served = self
            .pool
            .get(&fence.device_id)
            .ok_or_else(|| format!("device_id: this host has no device {:?}", fence.device_id))?;
        let order = read(fence)?;
        served.shut(order).map_err(|error| error.to_string())?;
        self.remember(&served.id, order.epoch).await?;
        served.open(order).map_err(|error| error.to_string())
    }

    /// The disk may take its time: other devices go on meanwhile.
    async fn remember(&self, device: &str, epoch: Epoch) -> Result<(), String> {
        let (state, device) = (Arc::clone(&self.state), device.to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.raise(&device, epoch)
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(potemkin_service::runtime::chain(&error)),
            Err(error) => Err(format!("the epoch could not be remembered: {error}")),
        }
    }
}

fn read(fence: &Fence) -> Result<FenceOrder, String> {
    if fence.epoch == 0 {
        return Err("epoch: 0 is no epoch".into());
    }
    let session = match fence.session_id.len() {
        0 => None,
        16 => SessionId::from_slice(&fence.session_id),
        other => return Err(format!("session_id: {other} bytes, expected 16 or none")),
    };
    Ok(FenceOrder {
        epoch: Epoch(fence.epoch),
        session,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn fence(epoch: u64, session_bytes: usize) -> Fence {
        Fence {
            device_id: "edu-0".into(),
            epoch,
            session_id: vec![7; session_bytes].into(),
        }
    }

    #[test]
    fn session_id_has_16_bytes_or_none() {
        assert_eq!(read(&fence(1, 0)).unwrap().session, None);
        let session = SessionId::from_bytes([7; 16]);
        assert_eq!(read(&fence(1, 16)).unwrap().session, Some(session));
        for bytes in [1, 15, 17] {
            let error = read(&fence(1, bytes)).unwrap_err();
            assert!(error.starts_with("session_id:"), "{error}");
        }
    }

    #[test]
    fn epoch_0_is_refused() {
        assert!(read(&fence(0, 16)).unwrap_err().starts_with("epoch:"));
    }
}
