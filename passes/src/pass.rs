use lowbit_ir::{Graph, Stage};

/// A step of the compiler from graph to graph that keeps the function.
pub struct Pass {
    /// Name in messages and on the command line.
    pub name: &'static str,
    /// The stage that it runs in.
    pub enters: Stage,
    /// Whether later steps rely on it; others can be left out when looking for a fault.
    pub required: bool,
    /// What it does.
    pub run: fn(&Graph) -> Graph,
}

/// What is shown and what is left out.
#[derive(Default)]
pub struct Control<'a> {
    /// Called with each graph after the pass of this name, or after all for `"all"`.
    pub print_after: Option<(&'a str, &'a mut dyn FnMut(&str, &Graph))>,
    /// The last pass to run.
    pub stop_after: Option<&'a str>,
    /// How many passes that are not required may run: bisects a fault.
    pub opt_limit: Option<usize>,
}

/// Runs passes in order and verifies after each.
///
/// # Panics
/// When a pass leaves an illegal graph: the message names it.
pub fn run_passes(graph: Graph, passes: &[Pass], mut control: Control<'_>) -> Graph {
    let mut graph = graph;
    let mut optional = 0;
    for pass in passes {
        if !pass.required {
            optional += 1;
            if control.opt_limit.is_some_and(|limit| optional > limit) {
                continue;
            }
        }
        graph = (pass.run)(&graph);
        if let Err(e) = graph.verify(pass.enters) {
            panic!("pass {} left an illegal graph: {e}", pass.name);
        }
        if let Some((name, show)) = &mut control.print_after
            && (*name == "all" || *name == pass.name)
        {
            show(pass.name, &graph);
        }
        if control.stop_after == Some(pass.name) {
            break;
        }
    }
    graph
}
