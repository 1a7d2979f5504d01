//! `top`: a live view of a running supervisor.
//!
//! What is shown and what a key means is decided in [`screen`]; here is the terminal, the connections and the clock.

mod screen;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use ratatui::{DefaultTerminal, crossterm};
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::daemon::{ControlClient, Followed};
use tokio::sync::mpsc;

use self::screen::{Act, EVENTS_MAX, Screen};
use super::source::{ask, connect, failure, unexpected};
use crate::args::Target;
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::Output;

/// Time between two looks at the status; what a service uses and how long it is up changes without an event.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Least time between two pictures while events come in.
const FRAME: Duration = Duration::from_millis(50);
/// Longest time the thread that reads keys takes to notice that nobody wants them any more.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Keys and outcomes of commands that wait to be looked at; at the bound the thread that reads keys waits.
const INPUT_MAX: usize = 64;

/// What happens beside events.
enum Input {
    Terminal(Event),
    /// A command ended, with these words.
    Said(String),
}

pub(super) async fn run(target: &Target, output: Output) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Failed, "top needs a terminal").help(
            "`ide-supervisor status --watch` prints lines, `status --json` is for programs",
        ));
    }
    let mut client = connect(target).await?;
    let mut follower = connect(target).await?;
    follower.follow().await.map_err(|error| failure(&error))?;
    let mut screen = Screen::new(output.is_coloured());
    let Body::Events(stored) =
        ask(&mut client, Call::Events { after: None, limit: EVENTS_MAX }).await?
    else {
        return Err(unexpected());
    };
    stored.into_iter().for_each(|event| screen.take_event(event));
    look(&mut client, &mut screen).await?;
    let mut terminal = Terminal::take()?;
    watch(target, &mut client, &mut follower, &mut screen, &mut terminal).await
}

/// Shows and obeys until somebody has seen enough or the supervisor ends.
async fn watch(
    target: &Target,
    client: &mut ControlClient,
    follower: &mut ControlClient,
    screen: &mut Screen,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let (sender, mut inputs) = mpsc::channel(INPUT_MAX);
    let _keys = Keys::read(sender.clone())?;
    let ending = os::asked_to_end().map_err(|error| broken(&error))?;
    tokio::pin!(ending);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next_frame = tokio::time::Instant::now();
    loop {
        if screen.is_stale() && tokio::time::Instant::now() >= next_frame {
            terminal.draw(screen)?;
            next_frame = tokio::time::Instant::now() + FRAME;
        }
        tokio::select! {
            () = &mut ending => return Ok(()),
            () = tokio::time::sleep_until(next_frame), if screen.is_stale() => {}
            _ = looks.tick() => look(client, screen).await?,
            followed = follower.next() => match followed.map_err(|error| failure(&error))? {
                Some(Followed::Event(event)) => screen.take_event(*event),
                Some(Followed::Missed(missed)) => screen.say(format!("{missed} events are missing here")),
                None => {
                    return Err(Failure::new(Exit::NoSupervisor, "the supervisor has ended")
                        .help("`ide-supervisor up` starts it"));
                }
            },
            input = inputs.recv() => match input {
                Some(Input::Terminal(event)) => match screen.input(&event) {
                    Act::Quit => return Ok(()),
                    Act::Ask(call, done) => carry_out(target.clone(), call, done, sender.clone()),
                    Act::Nothing => {}
                },
                Some(Input::Said(said)) => {
                    screen.say(said);
                    look(client, screen).await?;
                }
                None => return Ok(()),
            },
        }
    }
}

async fn look(client: &mut ControlClient, screen: &mut Screen) -> Result<(), Failure> {
    match ask(client, Call::Status).await? {
        Body::Status(report) => {
            screen.take_report(*report);
            Ok(())
        }
        _ => Err(unexpected()),
    }
}

/// Has a command done beside the picture, which goes on meanwhile: stopping may take as long as its grace period.
fn carry_out(target: Target, call: Call, done: String, said: mpsc::Sender<Input>) {
    // Nobody joins it: it ends with its answer or with the program.
    drop(tokio::spawn(async move {
        let answer = async { ask(&mut connect(&target).await?, call).await };
        let words = match answer.await {
            Ok(_) => done,
            Err(failure) => failure.message,
        };
        // Nobody reads it any more once the program ends.
        drop(said.send(Input::Said(words)).await);
    }));
}

/// The thread that waits for keys, until this is dropped.
struct Keys(Arc<AtomicBool>);

impl Keys {
    fn read(inputs: mpsc::Sender<Input>) -> Result<Self, Failure> {
        let wanted = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&wanted);
        let thread = std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while still.load(Ordering::Relaxed) {
                let event = match event::poll(KEY_WAIT) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                // A terminal that went away gives errors for ever.
                let Ok(event) = event else { return };
                if inputs.blocking_send(Input::Terminal(event)).is_err() {
                    return;
                }
            }
        });
        thread.map(|_| Self(wanted)).map_err(|error| broken(&error))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The terminal as a canvas; it is as before when this is dropped, and when the program panics.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn take() -> Result<Self, Failure> {
        let mut terminal = ratatui::try_init().map_err(|error| broken(&error))?;
        terminal.hide_cursor().map_err(|error| broken(&error))?;
        Ok(Self(terminal))
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        let drawn = self.0.draw(|frame| screen.draw(frame, chrono::Utc::now()));
        drawn.map(drop).map_err(|error| broken(&error))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be said about a terminal that cannot be written to.
        drop(crossterm::execute!(std::io::stdout(), crossterm::cursor::Show));
        ratatui::restore();
    }
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the terminal cannot be used: {error}"))
        .help("`ide-supervisor status --watch` needs less of it")
}
