use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use tokio::time::sleep;

use super::*;
use crate::{
    model::{LabelMatcher, ObjectKey, Uid},
    scrape::Settings,
};

/// Answers after a while, and counts.
#[derive(Default)]
struct Fake {
    takes: Duration,
    asked: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    fails: bool,
}

impl Fetch for Arc<Fake> {
    async fn fetch(&self, _: &Target) -> Result<Vec<u8>, FetchError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        sleep(self.takes).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.fails { Err(FetchError::Timeout) } else { Ok(format!("up {number}\n").into_bytes()) }
    }
}

const LONG: Duration = Duration::from_secs(60);

fn scraper(fake: Fake, limits: Limits) -> (Scraper<Arc<Fake>>, Arc<Fake>) {
    let fake = Arc::new(fake);
    (Scraper::with_limits(fake.clone(), limits), fake)
}

fn target(name: &str, uid: &str) -> Target {
    let settings = Settings { port: 80, path: Arc::from("/metrics"), names: Arc::from([Arc::from("up")]) };
    let address = "10.0.0.1:80".parse().expect("an address");
    Target { pod: ObjectKey::new("n", name), uid: Uid::from(uid), address, settings }
}

async fn up(scraper: &Scraper<Arc<Fake>>, target: &Target) -> Option<f64> {
    scraper.samples(target).await.expect("samples").sum("up", &LabelMatcher::default())
}

#[tokio::test]
async fn an_answer_is_used_again_until_it_is_old() {
    let limits = Limits { ttl: Duration::from_millis(500), ..LIMITS };
    let (scraper, fake) = scraper(Fake::default(), limits);
    let target = target("p", "u");
    assert_eq!([up(&scraper, &target).await, up(&scraper, &target).await], [Some(0.0), Some(0.0)]);
    sleep(limits.ttl).await;
    assert_eq!(up(&scraper, &target).await, Some(1.0));
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_pod_is_asked_once_for_all_who_wait() {
    for fails in [false, true] {
        let fake = Fake { takes: Duration::from_millis(50), fails, ..Fake::default() };
        let (scraper, fake) = scraper(fake, Limits { ttl: LONG, queue: LONG, ..LIMITS });
        let target = target("p", "u");
        let answers = join_all((0..100).map(|_| scraper.samples(&target))).await;
        assert!(answers.iter().all(|answer| *answer == answers[0] && answer.is_err() == fails));
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_others() {
    let fake = Fake { takes: Duration::from_millis(50), ..Fake::default() };
    let (scraper, fake) = scraper(fake, Limits { ttl: LONG, queue: LONG, ..LIMITS });
    let target = target("p", "u");
    let gives_up = timeout(Duration::from_millis(5), scraper.samples(&target));
    let (first, second) = tokio::join!(gives_up, scraper.samples(&target));
    assert!(first.is_err() && second.is_ok());
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn few_pods_are_asked_at_once() {
    let fake = Fake { takes: Duration::from_millis(5), ..Fake::default() };
    let (scraper, fake) = scraper(fake, Limits { queue: LONG, ..LIMITS });
    let targets: Vec<_> = (0..100).map(|number| target(&format!("p{number}"), "u")).collect();
    let answers = join_all(targets.iter().map(|target| scraper.samples(target))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.asked.load(Ordering::SeqCst), 100);
    assert_eq!(fake.most.load(Ordering::SeqCst), MAX_CONCURRENT);
}

#[tokio::test]
async fn who_waits_too_long_hears_that_others_are_being_asked() {
    let fake = Fake { takes: Duration::from_millis(300), ..Fake::default() };
    let (scraper, fake) = scraper(fake, Limits { ttl: LONG, concurrent: 1, queue: Duration::from_millis(20) });
    let (one, other) = (target("one", "u"), target("other", "u"));
    let answers = tokio::join!(scraper.samples(&one), scraper.samples(&other), scraper.samples(&one));
    assert_eq!(answers.1, Err(ScrapeError::Busy));
    assert!(answers.0.is_ok() && answers.2 == answers.0, "who waits for the Pod that is being asked gets its answer");
    assert!(scraper.samples(&other).await.is_ok(), "not kept");
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_next_pod_of_a_name_is_asked_itself() {
    let (scraper, fake) = scraper(Fake::default(), Limits { ttl: LONG, ..LIMITS });
    let (first, again) = (target("p", "first"), target("p", "again"));
    assert_eq!([up(&scraper, &first).await, up(&scraper, &again).await], [Some(0.0), Some(1.0)]);
    assert_eq!(up(&scraper, &again).await, Some(1.0));
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}
