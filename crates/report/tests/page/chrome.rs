//! A headless browser, driven by the DevTools protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

const NAMES: &[&str] = &[
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One page of a browser that ends with it.
pub(crate) struct Page {
    browser: Child,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    sent: u64,
    events: VecDeque<Value>,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Starts a browser; `None` where this machine has none.
    pub(crate) fn start() -> Option<Self> {
        let profile = tempfile::tempdir().expect("a folder for the browser");
        let mut browser = NAMES.iter().find_map(|name| launch(name, profile.path()))?;
        let address = address(&mut browser);
        let (socket, _) = tungstenite::connect(address).expect("the browser answers");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        }
        let mut page = Self {
            browser,
            socket,
            session: None,
            sent: 0,
            events: VecDeque::new(),
            _profile: profile,
        };
        page.attach();
        Some(page)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = self.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        self.session = attached["sessionId"].as_str().map(Into::into);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method of the protocol and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let text = message.to_string();
        self.socket
            .send(Message::text(text))
            .expect("the browser listens");
        loop {
            let answer = self.read();
            if answer["id"] == json!(self.sent) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push_back(answer);
        }
    }

    fn read(&mut self) -> Value {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "the browser is silent");
            if let Message::Text(text) = self.socket.read().expect("the browser answers") {
                return serde_json::from_str(&text).expect("the protocol is JSON");
            }
        }
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path) {
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", json!({ "url": url }));
        while !self
            .events
            .iter()
            .any(|e| e["method"] == "Page.loadEventFired")
        {
            let event = self.read();
            self.events.push_back(event);
        }
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {}",
            result["exceptionDetails"]
        );
        result["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds, as it is shown.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let value = self.eval(&format!("document.querySelector({selector:?}).innerText"));
        value
            .as_str()
            .unwrap_or_else(|| panic!("no {selector}"))
            .into()
    }

    /// Presses a key and lets it go.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What went wrong or left the page since a file was opened: errors of scripts, console and network, addresses that are no file.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.eval("0");
        self.events.iter().filter_map(complaint).collect()
    }
}

fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    let wrong = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
        "Log.entryAdded" => params["entry"]["level"] == "error",
        "Network.requestWillBeSent" => {
            let url = params["request"]["url"].as_str().unwrap_or("");
            !(url.starts_with("file:") || url.starts_with("data:") || url.starts_with("about:"))
        }
        _ => false,
    };
    wrong.then(|| params.to_string())
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.socket.close(None);
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

fn launch(name: &str, profile: &Path) -> Option<Child> {
    Command::new(name)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-port=0",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()
}

/// Where the browser listens, as it says on standard error.
fn address(browser: &mut Child) -> String {
    let stderr = browser.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(stderr).lines();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("DevTools listening on ").map(Into::into));
    // what it says later is read too, so that it never waits for a reader
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    found.expect("the browser says where it listens")
}
