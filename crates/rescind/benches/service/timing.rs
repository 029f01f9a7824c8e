//! What a refused login tells by its time.

use super::*;

/// Why a login may be refused, and how often each is asked, with how many keys.
const CLASSES: [&str; 4] = ["unknown key", "wrong secret", "suspended client", "revoked credential"];
const EACH: usize = 1_000_000;
const KEYS: usize = 64;

/// Whether a refused login tells by its time why it was refused (check 75): Welch's t-test over
/// interleaved measurements, the slowest few left out as the machine's noise.
pub(super) fn timing(runtime: &Runtime) {
    let store = Store::new(runtime);
    let app = open(runtime, store.dir.path());
    // Class by class as many keys, made in the same way and met as often.
    let mut presented: Vec<Vec<(String, String)>> = vec![vec![]; CLASSES.len()];
    runtime.block_on(async {
        for _ in 0..KEYS {
            for (class, presented) in presented.iter_mut().enumerate() {
                let CreatedClient { client_id, api_key, api_secret, .. } = client(&app).await;
                let other = ApiSecret::generate(&app.random).expose().to_owned();
                presented.push(match class {
                    0 => (generate_api_key(&app.random), other),
                    1 => (api_key, other),
                    2 => {
                        admin::suspend(&app, client_id, Default::default()).await.unwrap();
                        (api_key, api_secret)
                    }
                    _ => {
                        admin::revoke_credential(&app, &api_key).await.unwrap();
                        (api_key, api_secret)
                    }
                });
            }
        }
    });

    println!("  in process");
    compare(&presented, |key, secret| {
        let outcome = at_once(auth::login(&app, key, secret, &CALLER));
        assert!(matches!(outcome, Err(auth::Error::InvalidCredentials)));
    });

    println!("  over HTTP, one kept connection");
    let address = runtime.block_on(async {
        let server =
            rescind::server::Server::bind(Arc::clone(&app), &config(store.dir.path())).await.unwrap();
        let address = server.address().unwrap().to_string();
        tokio::spawn(server.run(std::future::pending()));
        address
    });
    let mut connection = Connection::to(&address);
    compare(&presented, |key, secret| connection.refused_login(key, secret));
}

/// Asks in mixed order until every class was asked often enough, and compares each with the first.
fn compare(presented: &[Vec<(String, String)>], mut ask: impl FnMut(&str, &str)) {
    let mut measured = vec![Vec::with_capacity(EACH); CLASSES.len()];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while measured.iter().any(|m: &Vec<f64>| m.len() < EACH) {
        // xorshift64: the order is to be mixed, no more.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let class = (random >> 20) as usize % CLASSES.len();
        let (key, secret) = &presented[class][(random >> 40) as usize % KEYS];
        let begun = Instant::now();
        ask(key, secret);
        measured[class].push(begun.elapsed().as_secs_f64() * 1e9);
    }
    // One threshold for all, or the cut itself would hide a difference.
    let mut all: Vec<f64> = measured.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all[all.len() * 95 / 100];
    let moments: Vec<Moments> =
        measured.into_iter().map(|class| Moments::of(class.into_iter().filter(|&ns| ns <= limit))).collect();
    for (i, class) in CLASSES.iter().enumerate() {
        let of = &moments[i];
        print!("  {class:<20} {:>7.1} ns  n {:>8.0}", of.mean, of.count);
        println!("{}", if i == 0 { String::new() } else { format!("  |t| {:>6.1}", of.welch(&moments[0])) });
    }
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    /// By Welford's recurrence.
    fn of(values: impl Iterator<Item = f64>) -> Moments {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for value in values {
            count += 1.0;
            let off = value - mean;
            mean += off / count;
            squares += off * (value - mean);
        }
        Moments { count, mean, variance: squares / (count - 1.0) }
    }

    fn welch(&self, other: &Moments) -> f64 {
        (self.mean - other.mean).abs() / (self.variance / self.count + other.variance / other.count).sqrt()
    }
}
