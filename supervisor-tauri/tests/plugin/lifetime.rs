//! What happens to the supervisor and the bridge when the application ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::ports::Delivery;
use supervisor_tauri::{Builder, NAME, SupervisorExt as _};
use tauri::RunEvent;

use crate::fake::{Fake, event};
use crate::page::open;

fn run_until_the_window_closes(page: crate::page::Page) {
    let window = page.window().clone();
    page.app.run_return(move |_, event| {
        if let RunEvent::Ready = event {
            window.close().unwrap();
        }
    });
}

#[test]
fn closing_the_last_window_shuts_the_supervisor_down_once_and_not_before() {
    let (fake, deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let page = open(Builder::new().control(Arc::clone(&fake) as _), &[], None);
    let (window, seen) = (page.window().clone(), Arc::clone(&fake));
    page.app.run_return(move |_, event| match event {
        RunEvent::Ready => window.close().unwrap(),
        RunEvent::ExitRequested { .. } => assert_eq!(seen.calls(), Vec::<String>::new()),
        _ => {}
    });
    assert_eq!(fake.calls(), ["shutdown Host"]);
    assert!(deliveries.is_closed(), "the bridge ended and dropped its subscription");
}

#[test]
fn an_application_that_owns_its_supervisor_keeps_it() {
    let (fake, deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let plugin = Builder::new().control(Arc::clone(&fake) as _).keep_running_at_exit();
    run_until_the_window_closes(open(plugin, &[], None));
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert!(deliveries.is_closed(), "the bridge ends all the same");
}

#[test]
fn a_supervisor_that_hangs_does_not_keep_the_application() {
    let (mut fake, deliveries) = Fake::new();
    fake.hangs_in_shutdown = true;
    let plugin =
        Builder::new().control(Arc::new(fake)).shutdown_deadline(Duration::from_millis(300));
    let started = Instant::now();
    run_until_the_window_closes(open(plugin, &[], None));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(deliveries.is_closed());
}

#[test]
fn removing_the_plugin_ends_supervisor_and_bridge() {
    let (fake, deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let page = open(Builder::new().control(Arc::clone(&fake) as _), &[], None);
    assert!(!deliveries.is_closed());
    page.app.handle().remove_plugin(NAME);
    assert_eq!(fake.calls(), ["shutdown Host"]);
    assert!(deliveries.try_send(Some(Delivery::Event(Box::new(event(1))))).is_err());
}

#[test]
fn rust_code_reaches_the_same_supervisor() {
    let (fake, _deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let page = open(Builder::new().control(Arc::clone(&fake) as _), &[], None);
    let control = page.app.supervisor().control().unwrap();
    tauri::async_runtime::block_on(control.start_monitoring()).unwrap();
    assert_eq!(fake.calls(), ["start_monitoring"]);
}
