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

/// Gets the name of a pass and the graph that it left.
pub type Show<'a> = &'a mut dyn FnMut(&str, &Graph);

/// What is shown and what is left out.
#[derive(Default)]
pub struct Control<'a> {
    /// Called with each graph after the pass of this name, or after all for `"all"`.
    pub print_after: Option<(&'a str, Show<'a>)>,
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

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Unary, UnaryFn};
    use lowbit_ir::{DType, Type};

    use super::*;

    /// Applies a function to the output.
    fn then(graph: &Graph, f: UnaryFn) -> Graph {
        let mut new = Graph::new("g");
        let mut v = new.input("x", Type::new(DType::F32, [2]));
        for (_, node) in graph.nodes() {
            v = new.push("v", node.op.clone(), &[v]).unwrap();
        }
        v = new.push("v", Unary(f), &[v]).unwrap();
        new.output("y", v);
        new
    }

    fn pass(name: &'static str, required: bool, run: fn(&Graph) -> Graph) -> Pass {
        Pass {
            name,
            enters: Stage::Float,
            required,
            run,
        }
    }

    fn passes() -> [Pass; 3] {
        [
            pass("abs", false, |g| then(g, UnaryFn::Abs)),
            pass("sin", true, |g| then(g, UnaryFn::Sin)),
            pass("cos", false, |g| then(g, UnaryFn::Cos)),
        ]
    }

    fn start() -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.input("x", Type::new(DType::F32, [2]));
        graph.output("y", x);
        graph
    }

    fn functions(graph: &Graph) -> Vec<UnaryFn> {
        let function = |op: &lowbit_ir::Op| match op {
            lowbit_ir::Op::Unary(u) => u.0,
            _ => panic!("unexpected operation"),
        };
        graph.nodes().map(|(_, n)| function(&n.op)).collect()
    }

    #[test]
    fn the_limit_leaves_out_what_is_not_required() {
        let run = |limit| {
            let control = Control {
                opt_limit: Some(limit),
                ..Control::default()
            };
            functions(&run_passes(start(), &passes(), control))
        };
        assert_eq!(run(0), [UnaryFn::Sin]);
        assert_eq!(run(1), [UnaryFn::Abs, UnaryFn::Sin]);
        assert_eq!(run(2), [UnaryFn::Abs, UnaryFn::Sin, UnaryFn::Cos]);
    }

    #[test]
    fn shows_and_stops_where_it_is_told() {
        let mut seen = Vec::new();
        let mut show =
            |name: &str, graph: &Graph| seen.push((name.to_owned(), graph.nodes().len()));
        let control = Control {
            print_after: Some(("all", &mut show)),
            stop_after: Some("sin"),
            opt_limit: None,
        };
        let last = run_passes(start(), &passes(), control);
        assert_eq!(seen, [("abs".to_owned(), 1), ("sin".to_owned(), 2)]);
        assert_eq!(last.nodes().len(), 2);
    }

    #[test]
    #[should_panic(expected = "pass spoil left an illegal graph")]
    fn an_illegal_graph_names_its_pass() {
        let spoil = pass("spoil", true, |graph| {
            graph
                .rewrite::<std::convert::Infallible>(|new, _, node, operands| {
                    // a node whose operand has another type than its result says
                    let x = new.push("r", lowbit_ir::ops::Reshape { shape: vec![2, 1] }, operands);
                    Ok(new.copy(node, &[x.unwrap()]))
                })
                .unwrap()
        });
        run_passes(then(&start(), UnaryFn::Abs), &[spoil], Control::default());
    }
}
