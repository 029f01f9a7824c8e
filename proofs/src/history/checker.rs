//! Reads a history, one operation after the other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    logouts::{Logouts, Reach, Session},
    operation::{Action, Malformed, Operation, Pair, Verdict},
    report::{Report, Seen, Violation},
};

/// A history that is being read. The memory used grows with clients, pairs, logouts and violations, not with
/// verifications.
#[derive(Debug, Default)]
pub struct Checker {
    nodes: HashSet<Arc<str>>,
    client_ids: HashMap<Arc<str>, usize>,
    clients: Vec<Client>,
    token_ids: HashMap<Arc<str>, usize>,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    losses: Vec<Loss>,
    last_end: u64,
    report: Report,
}

/// The service may have lost the results of operations that overlap this time.
#[derive(Debug, Clone, Copy)]
struct Loss {
    begin: u64,
    end: u64,
}

#[derive(Debug)]
struct Client {
    name: Arc<str>,
    logouts: Logouts,
    /// The first refusal of each token that no operation so far explains. A later line may explain it: its
    /// operation can have begun before the refusal was answered.
    unexplained: BTreeMap<usize, Seen>,
}

#[derive(Debug)]
struct Token {
    name: Arc<str>,
    client: usize,
    session: usize,
    generation: Option<u64>,
    /// From when on the token could be used.
    given: u64,
    /// When the first refresh that presented the token began.
    presented: Option<u64>,
    /// A refresh has returned the token's successor.
    succeeded: bool,
    /// The first such refresh that cannot have been lost.
    consumed: Option<Seen>,
}

impl Loss {
    fn may_have_undone(&self, begin: u64, end: u64) -> bool {
        begin <= self.end && self.begin <= end
    }
}

impl Checker {
    /// Reads the operation on this line. Operations come in the order of their ends.
    ///
    /// # Errors
    ///
    /// Fails if the operation contradicts an earlier one, or is out of order.
    pub fn observe(&mut self, line: u64, operation: Operation) -> Result<(), Malformed> {
        let (op, verdict) = (operation.kind(), operation.verdict());
        let Operation { begin, end, client, node, action } = operation;
        if end < begin {
            return Err(Malformed::new("end", "before `begin`"));
        }
        if end < self.last_end {
            return Err(Malformed::new(
                "end",
                "before that of the operation above: sort the history by `end`",
            ));
        }
        self.last_end = end;
        let client = self.client(&client);
        let seen = Seen { line, op, begin, end, node: self.node(&node) };

        match action {
            Action::Login { verdict: Verdict::Accepted(pair) } => {
                self.sessions.push(Session::opened(seen, client));
                self.give(pair, self.sessions.len() - 1, end)?;
                self.moved_on(self.sessions.len() - 1, begin, end);
            }
            Action::Login { .. } => {}
            Action::Refresh { token, verdict: outcome } => {
                let token = self.presented(&token, client, begin)?;
                self.contest(token, begin);
                self.judge(token, verdict, &seen);
                if let Verdict::Accepted(pair) = outcome {
                    let session = self.tokens[token].session;
                    let again = std::mem::replace(&mut self.tokens[token].succeeded, true);
                    self.consume(token, seen);
                    if !(again && self.token_ids.contains_key(pair.token.as_str())) {
                        self.give(pair, session, end)?;
                    }
                    self.moved_on(session, begin, end);
                }
            }
            Action::Verify { token, .. } => {
                let token = self.presented(&token, client, begin)?;
                self.judge(token, verdict, &seen);
            }
            Action::Logout { token, .. } => {
                let token = token.map(|token| self.presented(&token, client, begin)).transpose()?;
                if let Some(token) = token {
                    self.judge(token, verdict, &seen);
                }
                self.log_out(client, token, verdict, seen);
            }
            Action::Revoke { token, .. } => {
                let token = self.presented(&token, client, begin)?;
                self.revoke(self.tokens[token].session, verdict, seen);
            }
            Action::Loss => self.lose(Loss { begin, end }),
        }
        self.report.operations += 1;
        self.report.verdicts.entry(op).or_default().add(verdict);
        Ok(())
    }

    /// The report on the whole history.
    pub fn finish(self) -> Report {
        let Checker { clients, tokens, sessions, mut report, .. } = self;
        report.clients = clients.len() as u64;
        report.pairs = tokens.len() as u64;
        let names: Vec<_> = clients.iter().map(|client| Arc::clone(&client.name)).collect();
        let mut refused: Vec<_> = clients.into_iter().flat_map(|client| client.unexplained).collect();
        refused.sort_by_key(|(_, refused)| refused.line);
        report.violations.extend(refused.into_iter().map(|(token, refused)| {
            let Token { name, client, session, .. } = &tokens[token];
            Violation::LiveRefused {
                token: Arc::clone(name),
                client: Arc::clone(&names[*client]),
                login: Seen::clone(&sessions[*session].login),
                refused,
            }
        }));
        report
    }

    /// Records a pair that was given.
    fn give(&mut self, pair: Pair, session: usize, end: u64) -> Result<(), Malformed> {
        let Pair { token, generation } = pair;
        let client = self.sessions[session].client;
        if self.token_ids.contains_key(token.as_str()) {
            return Err(Malformed::new("gives", format!("{token} was given before")));
        }
        if let Some(generation) = generation {
            self.clients[client].logouts.reached(end, generation);
        }
        let name: Arc<str> = token.into();
        self.token_ids.insert(Arc::clone(&name), self.tokens.len());
        self.tokens.push(Token {
            name,
            client,
            session,
            generation,
            given: end,
            presented: None,
            succeeded: false,
            consumed: None,
        });
        Ok(())
    }

    /// Records that a session was opened or refreshed.
    fn moved_on(&mut self, session: usize, begin: u64, end: u64) {
        self.sessions[session].moved_on = end;
        let undone = self.losses.iter().filter(|loss| loss.may_have_undone(begin, end));
        if let Some(from) = undone.map(|loss| loss.begin).min() {
            self.excuse(session, from);
        }
    }

    /// The token that a client presented.
    fn presented(&self, token: &str, client: usize, begin: u64) -> Result<usize, Malformed> {
        let id = self.token_ids.get(token).copied();
        let id = id.ok_or_else(|| Malformed::new("token", format!("nothing above gives {token}")))?;
        let Token { client: owner, given, .. } = &self.tokens[id];
        if *owner != client {
            let owner = &self.clients[*owner].name;
            return Err(Malformed::new("client", format!("{token} was given to {owner}")));
        }
        if begin < *given {
            return Err(Malformed::new("begin", format!("{token} was given only at {given}")));
        }
        Ok(id)
    }

    /// Records that a refresh presents a token. If an earlier one has presented it too, the service may end
    /// the session once both have begun.
    fn contest(&mut self, token: usize, begin: u64) {
        let Token { session, presented, .. } = &mut self.tokens[token];
        let Some(first) = presented.replace(presented.map_or(begin, |first| first.min(begin))) else {
            return;
        };
        let session = *session;
        self.excuse(session, first.max(begin));
    }

    /// Any token of the session may be refused from this time on.
    fn excuse(&mut self, session: usize, from: u64) {
        let Session { client, contested, .. } = &mut self.sessions[session];
        *contested = true;
        let tokens = &self.tokens;
        self.clients[*client]
            .unexplained
            .retain(|&refused, seen| tokens[refused].session != session || seen.end < from);
    }

    /// Records a request to end a session.
    fn revoke(&mut self, session: usize, verdict: Verdict, revoked: Seen) {
        if verdict == Verdict::Refused {
            return;
        }
        self.excuse(session, revoked.begin);
        if verdict == Verdict::Accepted(()) {
            self.sessions[session].revoked.get_or_insert_with(|| Arc::new(revoked));
        }
    }

    /// Records that results since the loss's begin may be lost.
    fn lose(&mut self, loss: Loss) {
        let undone = |seen: &Seen| loss.may_have_undone(seen.begin, seen.end);
        for session in 0..self.sessions.len() {
            if self.sessions[session].moved_on >= loss.begin {
                self.excuse(session, loss.begin);
            }
        }
        for token in &mut self.tokens {
            // Refreshes that ended later are lost too.
            token.consumed.take_if(|first| undone(first));
        }
        self.report.violations.retain(|violation| {
            !matches!(violation, Violation::ConsumedTwice { first, second, .. } if undone(first) || undone(second))
        });
        self.losses.push(loss);
    }

    /// Records that a refresh has returned a token's successor.
    fn consume(&mut self, token: usize, refresh: Seen) {
        if self.losses.iter().any(|loss| loss.may_have_undone(refresh.begin, refresh.end)) {
            return;
        }
        let Token { name, client, consumed, .. } = &mut self.tokens[token];
        if let Some(first) = consumed {
            self.report.violations.push(Violation::ConsumedTwice {
                token: Arc::clone(name),
                client: Arc::clone(&self.clients[*client].name),
                first: first.clone(),
                second: refresh,
            });
        } else {
            *consumed = Some(refresh);
        }
    }

    /// Judges whether the verdict on a presented token can be correct.
    fn judge(&mut self, token: usize, verdict: Verdict, seen: &Seen) {
        let Token { name, client, session, generation, .. } = &self.tokens[token];
        let (session, client) = (&self.sessions[*session], &mut self.clients[*client]);
        let logout = client.logouts.revoked_before(seen.begin, session, *generation);
        match (logout, verdict) {
            (_, Verdict::Unknown) | (None, Verdict::Accepted(())) => {}
            (Some(_), Verdict::Refused) => self.report.revoked_presented += 1,
            (Some(logout), Verdict::Accepted(())) => {
                self.report.revoked_presented += 1;
                self.report.violations.push(Violation::RevokedAccepted {
                    token: Arc::clone(name),
                    client: Arc::clone(&client.name),
                    login: Seen::clone(&session.login),
                    logout: Seen::clone(logout),
                    accepted: seen.clone(),
                });
            }
            (None, Verdict::Refused) => {
                if !session.contested && !client.logouts.may_have_revoked(session, *generation) {
                    client.unexplained.entry(token).or_insert_with(|| seen.clone());
                }
            }
        }
    }

    /// Records a logout by a token or by an operator.
    fn log_out(&mut self, client: usize, token: Option<usize>, verdict: Verdict, logout: Seen) {
        let Client { logouts, unexplained, .. } = &mut self.clients[client];
        let generation = token.and_then(|token| self.tokens[token].generation);
        let begin = logout.begin;
        match verdict {
            Verdict::Refused => return,
            Verdict::Accepted(()) => logouts.accept(logout, generation),
            Verdict::Unknown => logouts.doubt(generation),
        }
        let reach = Reach::of(generation);
        unexplained
            .retain(|&refused, seen| seen.end < begin || !reach.includes(self.tokens[refused].generation));
    }

    fn client(&mut self, name: &str) -> usize {
        if let Some(&id) = self.client_ids.get(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        self.client_ids.insert(Arc::clone(&name), self.clients.len());
        self.clients.push(Client { name, logouts: Logouts::default(), unexplained: BTreeMap::new() });
        self.clients.len() - 1
    }

    fn node(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.nodes.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = name.into();
        self.nodes.insert(Arc::clone(&name));
        name
    }
}
