//! The page in a browser: what it shows against the facts, by keyboard, by screen reader, in both colour schemes, narrow and on paper.

mod chrome;
mod sample;

use chrome::Page;
use lowbit_report::text::{bytes, micros, percent, significant};
use lowbit_report::{Report, report_page, temperature_sentence};
use serde_json::{Value, json};

/// One browser for all: starting it takes longer than what is checked.
#[test]
fn the_page_in_a_browser() {
    let Some(mut page) = Page::start() else {
        eprintln!("no Chromium here: the page is not opened");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.html");
    let report = sample::report();
    std::fs::write(&file, report_page(&report)).expect("it is written");
    let checks: [fn(&mut Page, &Report); 6] = [
        figures_are_those_of_the_facts,
        the_slider_shows_what_each_budget_gives,
        the_keyboard_reaches_everything_in_order,
        a_screen_reader_finds_names_and_landmarks,
        letters_stand_out_in_both_schemes,
        it_fits_narrow_screens_and_paper,
    ];
    for check in checks {
        page.open(&file);
        check(&mut page, &report);
        assert_eq!(page.complaints(), Vec::<String>::new());
    }
}

fn figures_are_those_of_the_facts(page: &mut Page, r: &Report) {
    let a = r.accuracy.as_ref().expect("the sample has accuracy");
    let figures = page.text("header .figures");
    for text in [
        percent(a.top1.expect("the sample has labels")),
        bytes(r.totals.weight_bytes as f64),
        bytes(r.totals.arena_bytes as f64),
        micros(r.totals.latency_us.expect("the sample has times")),
    ] {
        assert!(figures.contains(&text), "no {text} in {figures}");
    }
    let comparison = page.text(".comparison");
    for b in r.baselines.values() {
        assert!(comparison.contains(&percent(b.top1.expect("labels"))));
        assert!(comparison.contains(&bytes(b.weight_bytes as f64)));
    }
    let rows = page.eval("[...document.querySelectorAll('.layers tbody')].map(r => r.innerText)");
    let rows = rows.as_array().expect("a table");
    assert_eq!(rows.len(), r.layers.len());
    for (row, l) in rows.iter().zip(&r.layers) {
        let row = row.as_str().expect("text");
        let size = bytes(l.weight_bytes as f64);
        let loss = significant(l.predicted_loss.expect("the sample has losses"));
        for part in [&l.name, &size, &loss, &l.why] {
            assert!(row.contains(part.as_str()), "no {part} in {row}");
        }
    }
    assert!(page.text("#memory").contains("peak of 13.2 kB"));
    let compared = page.text("#compared");
    for part in [
        "mixed plan",
        "0.0123",
        "compiled",
        "4 bits but for conv1 (8) and fc (8)",
        "0.0345",
    ] {
        assert!(compared.contains(part), "{compared}");
    }
    assert_eq!(page.eval("document.querySelector('#broken')"), Value::Null);
    predictions_are_told_with_their_errors(page, r);
}

fn predictions_are_told_with_their_errors(page: &mut Page, r: &Report) {
    let p = r.predictor.as_ref().expect("the sample has predictions");
    let own = page.text("#ranks .own");
    for rank in p.ranks.iter().filter(|r| r.metric == p.metric) {
        let cell = format!("{:.2} ({:.2}–{:.2})", rank.value, rank.low, rank.high);
        assert!(own.contains(&cell), "no {cell} in {own}");
    }
    let told = temperature_sentence(p.temperature.expect("the sample has one"));
    assert!(page.text("main").contains(&told), "no {told}");
    let traces = p.traces.as_ref().expect("the sample has traces");
    let shown = page.text("#traces");
    for l in &traces.layers {
        let probes = l.probes.zip(l.probes_error).expect("the sample has probes");
        for (x, e) in [(l.gradients, l.gradients_error), probes] {
            let cell = format!("{} ± {}", significant(x), significant(e));
            assert!(shown.contains(&cell), "no {cell} in {shown}");
        }
    }
}

fn the_slider_shows_what_each_budget_gives(page: &mut Page, r: &Report) {
    let chosen = r.chosen().expect("the sample's plan is on its frontier");
    assert_eq!(
        page.eval("document.querySelector('#budget').valueAsNumber"),
        json!(chosen)
    );
    page.eval("document.querySelector('#budget').focus()");
    for (key, code, at) in [
        ("ArrowRight", 39, chosen + 1),
        ("ArrowLeft", 37, chosen),
        ("ArrowLeft", 37, chosen - 1),
        ("Home", 36, 0),
    ] {
        page.press(key, code);
        check_point(page, r, at, chosen);
    }
}

fn check_point(page: &mut Page, r: &Report, i: usize, chosen: usize) {
    let p = &r.frontier[i];
    assert_eq!(
        page.eval("document.querySelector('#budget').valueAsNumber"),
        json!(i)
    );
    assert_eq!(page.text("#frontier-size"), bytes(p.weight_bytes as f64));
    assert!(
        page.text("#frontier-loss")
            .contains(&significant(p.predicted_loss))
    );
    let spoken = page.eval("document.querySelector('#budget').getAttribute('aria-valuetext')");
    assert!(
        spoken
            .as_str()
            .expect("it speaks")
            .contains(&bytes(p.weight_bytes as f64))
    );
    let bars = page.eval("[...document.querySelectorAll('#frontier-bars span')].map(b => [b.dataset.format, parseFloat(b.style.height), b.classList.contains('changed')])");
    let expected: Vec<Value> = (p.formats.iter().zip(&r.frontier[chosen].formats))
        .map(|(f, before)| {
            let bits = lowbit_report::insight::format_bits(f).expect("a known format");
            json!([f.replace("int", ""), bits * 12.5, f != before])
        })
        .collect();
    let close =
        |a: &Value, b: &Value| a[0] == b[0] && a[1].as_f64() == b[1].as_f64() && a[2] == b[2];
    let bars = bars.as_array().expect("a strip");
    assert!(
        bars.iter().zip(&expected).all(|(a, b)| close(a, b)),
        "{bars:?} {expected:?}"
    );
    let command = page.text("#frontier-command");
    let bits: f64 = command
        .split("--bits ")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .expect("a budget")
        .parse()
        .expect("a number");
    assert!(
        bits >= p.bits && bits < p.bits + 0.002,
        "{bits} for {}",
        p.bits
    );
}

fn the_keyboard_reaches_everything_in_order(page: &mut Page, r: &Report) {
    page.eval("window.seen = []; window.visible = []");
    for _ in 0..40 {
        page.press("Tab", 9);
        let again = page.eval("seen.includes(document.activeElement) || document.activeElement === document.body || (seen.push(document.activeElement), visible.push(getComputedStyle(document.activeElement).outlineStyle !== 'none'), false)");
        if again == json!(true) {
            break;
        }
    }
    let order = page.eval("seen.every((e, i) => i === 0 || seen[i - 1].compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING)");
    assert_eq!(order, json!(true));
    let kinds = page.eval("[seen[0].className, seen.filter(e => e.matches('nav a')).length, seen.filter(e => e.matches('.columns button')).length, seen.filter(e => e.id === 'budget').length, visible.every(Boolean)]");
    assert_eq!(kinds, json!(["skip", 6, 1, 1, true]));
    page.eval("document.querySelector('.columns button').focus()");
    page.press("ArrowRight", 39);
    page.press("ArrowRight", 39);
    let card = page.eval("[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.innerText).join()");
    let card = card.as_str().expect("a card is shown");
    assert!(
        card.contains(&r.layers[2].name) && card.contains(&r.layers[2].why),
        "{card}"
    );
    page.press("End", 35);
    assert_eq!(
        page.eval(
            "document.querySelector('.columns [aria-current]').getAttribute('aria-controls')"
        ),
        json!("layer-4")
    );
}

fn a_screen_reader_finds_names_and_landmarks(page: &mut Page, _: &Report) {
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<(&str, &str)> = tree["nodes"]
        .as_array()
        .expect("a tree")
        .iter()
        .filter(|n| n["ignored"] == json!(false))
        .map(|n| {
            (
                n["role"]["value"].as_str().unwrap_or(""),
                n["name"]["value"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let count = |role: &str| nodes.iter().filter(|n| n.0 == role).count();
    for (landmark, wanted) in [
        ("main", 1),
        ("banner", 1),
        ("contentinfo", 1),
        ("navigation", 1),
        ("slider", 1),
    ] {
        assert_eq!(count(landmark), wanted, "{landmark}");
    }
    for role in [
        "button",
        "slider",
        "region",
        "image",
        "navigation",
        "group",
        "link",
        "heading",
    ] {
        let unnamed = nodes
            .iter()
            .filter(|n| n.0 == role && n.1.trim().is_empty())
            .count();
        assert!(
            count(role) > 0 && unnamed == 0,
            "{unnamed} of {} {role} have no name",
            count(role)
        );
    }
    let levels = page.eval("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])");
    let levels: Vec<u64> = levels
        .as_array()
        .expect("headings")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(levels.iter().filter(|l| **l == 1).count(), 1);
    assert!(levels.windows(2).all(|w| w[1] <= w[0] + 1), "{levels:?}");
    let double = page.eval("(ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))");
    assert_eq!(double, json!(0));
}

/// Texts whose contrast with what lies behind them is under what WCAG asks for (4.5, or 3 for large letters).
const FAINT: &str = r"(() => {
  const parse = (c) => { const v = c.match(/[\d.]+/g).map(Number); return c.startsWith('color(srgb') ? [v[0] * 255, v[1] * 255, v[2] * 255, v[3] ?? 1] : [v[0], v[1], v[2], v[3] ?? 1]; };
  const light = (c) => { const [r, g, b] = c.map((x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest('script, style, .skip') || e.getClientRects().length === 0) continue;
    const s = getComputedStyle(e), a = light(parse(s.color).slice(0, 3)), b = light(behind(e).slice(0, 3));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && s.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim()}`);
  }
  return [found, getComputedStyle(document.body).backgroundColor];
})()";

fn letters_stand_out_in_both_schemes(page: &mut Page, _: &Report) {
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        page.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
        let found = page.eval(FAINT);
        assert_eq!(found[0], json!([]), "{scheme}");
        papers.push(found[1].clone());
    }
    assert_ne!(papers[0], papers[1]);
}

/// What sticks out of the page sideways and cannot be scrolled.
const WIDE: &str = "document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))";

fn it_fits_narrow_screens_and_paper(page: &mut Page, _: &Report) {
    for width in [360, 800, 1600] {
        let metrics =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        page.call("Emulation.setDeviceMetricsOverride", metrics);
        assert_eq!(page.eval(WIDE), json!([]), "{width}");
    }
    let hidden = page.eval("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.tall'))");
    assert_eq!(hidden, json!(0), "of the table of layers");
    page.call("Emulation.setEmulatedMedia", json!({ "media": "print" }));
    let hidden = page.eval("['nav', '.skip', '#budget', '.cards'].every(s => getComputedStyle(document.querySelector(s)).display === 'none')");
    assert_eq!(hidden, json!(true));
    let pdf = page.call("Page.printToPDF", json!({ "printBackground": true }));
    let start = pdf["data"].as_str().map(|d| &d[..6]);
    assert_eq!(start, Some("JVBERi"), "%PDF- in base 64");
}
