use std::convert::Infallible;

use lowbit_ir::{Graph, Stage, Tensor};

use crate::Pass;

/// Computes what does not depend on the inputs.
pub(crate) const PASS: Pass = Pass {
    name: "fold-constants",
    enters: Stage::Float,
    required: true,
    run,
};

fn run(graph: &Graph) -> Graph {
    let folded: Result<Graph, Infallible> = graph.rewrite(|new, _, node, operands| {
        let constants: Option<Vec<Tensor>> = operands
            .iter()
            .map(|&v| new.as_const(v).map(|t| t.as_ref().clone()))
            .collect();
        let result = constants.and_then(|c| node.op.eval(&c.iter().collect::<Vec<_>>()).ok());
        Ok(match result {
            Some(tensor) => {
                let name = new.old().value(node.output).name.clone();
                new.constant(name, tensor)
            }
            None => new.copy(node, operands),
        })
    });
    folded.unwrap_or_else(|e| match e {})
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::{Binary, BinaryFn};
    use lowbit_ir::{DType, Type};

    use super::super::testing::{check, constant, count};
    use super::*;

    #[test]
    fn computes_constants_and_drops_what_nothing_needs() {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::new(DType::F32, [3]));
        let (a, b) = (constant(&mut g, &[3]), constant(&mut g, &[3]));
        let c = g.push("c", Binary(BinaryFn::Mul), &[a, b]).unwrap();
        let y = g.push("y", Binary(BinaryFn::Add), &[x, c]).unwrap();
        g.push("unused", Binary(BinaryFn::Add), &[x, x]).unwrap();
        g.output("y", y);
        let new = check(&g, &PASS);
        assert_eq!(count(&new, "binary"), 1);
    }
}
