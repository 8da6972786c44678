//! The timers and the clock of the browser, in a page or in a worker.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use js_sys::{Function, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};

/// The longest delay that `setTimeout` accepts, about 25 days.
const MILLIS_MAX: u128 = i32::MAX as u128;

/// A callback that runs once, later. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Timeout {
    id: JsValue,
    _callback: Closure<dyn Fn()>,
}

impl Timeout {
    pub(crate) fn new(delay: Duration, callback: impl Fn() + 'static) -> Self {
        let callback = Closure::<dyn Fn()>::new(callback);
        let millis = delay.as_millis().min(MILLIS_MAX) as f64;
        let function = callback.as_ref().unchecked_ref::<Function>();
        let id = global_function("setTimeout")
            .and_then(|set| set.call2(&JsValue::UNDEFINED, function, &millis.into()))
            .expect("every scope with WebSocket has timers");
        Self {
            id,
            _callback: callback,
        }
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        if let Ok(clear) = global_function("clearTimeout") {
            let _ = clear.call1(&JsValue::UNDEFINED, &self.id);
        }
    }
}

/// A future that is ready after a delay.
#[derive(Debug)]
pub(crate) struct Sleep {
    fired: Rc<RefCell<Fired>>,
    _timeout: Timeout,
}

#[derive(Debug, Default)]
struct Fired {
    is_over: bool,
    waker: Option<Waker>,
}

impl Sleep {
    pub(crate) fn new(delay: Duration) -> Self {
        let fired = Rc::<RefCell<Fired>>::default();
        let callback = {
            let fired = fired.clone();
            move || {
                let waker = {
                    let mut fired = fired.borrow_mut();
                    fired.is_over = true;
                    fired.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        };
        Self {
            fired,
            _timeout: Timeout::new(delay, callback),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut fired = self.fired.borrow_mut();
        if fired.is_over {
            return Poll::Ready(());
        }
        fired.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The time since the page or the worker was started. Never goes backwards; `std::time::Instant` does not work on
/// wasm32.
pub(crate) fn now() -> Duration {
    let millis = Reflect::get(&js_sys::global(), &"performance".into())
        .and_then(|performance| {
            let now = Reflect::get(&performance, &"now".into())?;
            now.dyn_into::<Function>()?.call0(&performance)
        })
        .ok()
        .and_then(|now| now.as_f64());
    Duration::from_secs_f64(millis.unwrap_or_default().max(0.0) / 1000.0)
}

fn global_function(name: &str) -> Result<Function, JsValue> {
    Reflect::get(&js_sys::global(), &name.into())?.dyn_into()
}
