//! What operators and kubelet may ask: whether the agent lives, is ready, and its metrics.

use crate::metrics::Metrics;
use crate::reporter::LastReport;
use crate::store::Store;
use crate::views::Views;
use axum::Router;
use hearth_runtime::admin::Readiness;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The routes of the admin server.
pub fn router(metrics: &Arc<Metrics>, store: Store, views: Views, reports: LastReport) -> Router {
    let reported = AtomicBool::new(false);
    let ready = move || -> Readiness {
        // An extender that is away later makes no agent less able to serve what it holds.
        if !reported.load(Ordering::Relaxed) {
            if reports.age().is_none() {
                return Err(
                    "the store is open, but no replica of the extender has taken a report yet".to_owned()
                );
            }
            reported.store(true, Ordering::Relaxed);
        }
        let seconds = reports.age().unwrap_or_default().as_secs();
        Ok(format!("the store is open, the last report was taken {seconds} seconds ago"))
    };
    let observed = metrics.clone();
    let observe = move || {
        observed.observe_store(&store);
        observed.observe_views(views.counts(), views.sessions());
    };
    hearth_runtime::admin::router(metrics.registry.clone(), ready, observe)
}
