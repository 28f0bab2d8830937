//! The text form: a line for each quantisation, value and output.
//!
//! ```text
//! graph "net"
//! q0 = zero 128 axis none scales 1073741824/2^36
//! %0 = input "x" f32[1,4]
//! %1 = const "w" f32[4] 0.5 -1.0 2.0 0.25
//! %2 = {"Binary":"mul"} %0 %1 "y" f32[1,4]
//! output "y" %2
//! ```
//!
//! An operation is written as JSON with its attributes. Types of results are checked against the shape rule.

use std::fmt;
use std::str::FromStr;

use lowbit_num::Dyadic;
use serde::de::DeserializeOwned;

use crate::{DType, Data, Def, Graph, Op, Quant, QuantId, Tensor, Type, ValueId, with_data};

/// Why a text is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

fn json(x: &impl serde::Serialize) -> String {
    serde_json::to_string(x).expect("operations and names have no maps with other keys than text")
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", json(&self.name))?;
        for (id, quant) in self.quants() {
            let axis = quant.axis.map_or("none".into(), |a| a.to_string());
            write!(f, "{id} = zero {} axis {axis} scales", quant.zero_point)?;
            quant.scales.iter().try_for_each(|s| write!(f, " {s}"))?;
            writeln!(f)?;
        }
        for (id, value) in self.values() {
            match &value.def {
                Def::Input(_) => write!(f, "{id} = input")?,
                Def::Const(_) => write!(f, "{id} = const")?,
                Def::Node(n) => {
                    let node = self.node(*n);
                    write!(f, "{id} = {}", json(&node.op))?;
                    node.inputs.iter().try_for_each(|v| write!(f, " {v}"))?;
                }
            }
            write!(f, " {} {}", json(&value.name), value.ty)?;
            if let Def::Const(t) = &value.def {
                with_data!(t.data(), v => v.iter().try_for_each(|x| write!(f, " {x:?}")))?;
            }
            writeln!(f)?;
        }
        let mut outputs = self.outputs().iter();
        outputs.try_for_each(|o| writeln!(f, "output {} {}", json(&o.name), o.value))
    }
}

/// Reads the text form of a graph.
///
/// # Errors
/// The first line that cannot be read, or whose type is not what its operation gives.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut reader = Reader::default();
    for (i, line) in text.lines().enumerate() {
        let read = reader.line(Line(line));
        read.map_err(|message| ParseError {
            line: i + 1,
            message,
        })?;
    }
    Ok(reader.graph)
}

type Read<T> = Result<T, String>;

#[derive(Default)]
struct Reader {
    graph: Graph,
    quants: Vec<QuantId>,
    values: Vec<ValueId>,
}

impl Reader {
    fn line(&mut self, mut line: Line<'_>) -> Read<()> {
        match line.word() {
            None => Ok(()),
            Some("graph") => {
                self.graph.name = line.json()?;
                line.end()
            }
            Some("output") => {
                let name: String = line.json()?;
                let value = self.value(line.some("a value")?)?;
                self.graph.output(name, value);
                line.end()
            }
            Some(id) if id.starts_with('q') => self.quant(id, line),
            Some(id) => {
                if id != format!("%{}", self.values.len()) {
                    return Err(format!("expected %{}, found {id}", self.values.len()));
                }
                line.expect("=")?;
                let value = self.definition(line)?;
                self.values.push(value);
                Ok(())
            }
        }
    }

    fn quant(&mut self, id: &str, mut line: Line<'_>) -> Read<()> {
        if id != format!("q{}", self.quants.len()) {
            return Err(format!("expected q{}, found {id}", self.quants.len()));
        }
        line.expect("=")?;
        line.expect("zero")?;
        let zero_point = line.number()?;
        line.expect("axis")?;
        let axis = match line.some("an axis")? {
            "none" => None,
            axis => Some(number(axis)?),
        };
        line.expect("scales")?;
        let scales = line.rest().map(scale).collect::<Read<Vec<Dyadic>>>()?;
        if scales.is_empty() || (axis.is_none() && scales.len() > 1) {
            return Err(format!("{} scales do not fit the axis", scales.len()));
        }
        let quant = Quant {
            scales,
            axis,
            zero_point,
        };
        self.quants.push(self.graph.intern(quant));
        Ok(())
    }

    fn definition(&mut self, mut line: Line<'_>) -> Read<ValueId> {
        if line.starts("{") {
            return self.node(line);
        }
        let kind = line.some("'input', 'const' or an operation")?;
        let name: String = line.json()?;
        let ty = self.ty(line.some("a type")?)?;
        match kind {
            "input" => {
                line.end()?;
                Ok(self.graph.input(name, ty))
            }
            "const" => {
                let data = elements(ty.dtype, line.rest())?;
                if crate::elements(&ty.shape) != Some(data.len()) {
                    return Err(format!("{} elements for {ty}", data.len()));
                }
                let tensor = Tensor::from_data(ty.shape, data);
                Ok(self.graph.constant_quantized(name, tensor, ty.quant))
            }
            other => Err(format!("expected 'input' or 'const', found {other}")),
        }
    }

    fn node(&mut self, mut line: Line<'_>) -> Read<ValueId> {
        let op: Op = line.json()?;
        let mut operands = Vec::new();
        while line.starts("%") {
            operands.push(self.value(line.some("a value")?)?);
        }
        let name: String = line.json()?;
        let ty = self.ty(line.some("a type")?)?;
        line.end()?;
        let id = self.graph.push(name, op, &operands);
        let id = id.map_err(|e| e.to_string())?;
        let found = self.graph.ty(id);
        if (found.dtype, &found.shape) != (ty.dtype, &ty.shape) {
            return Err(format!("the operation gives {found}, not {ty}"));
        }
        self.graph.set_quant(id, ty.quant);
        Ok(id)
    }

    fn value(&self, word: &str) -> Read<ValueId> {
        let index = word.strip_prefix('%').map(number::<usize>).transpose()?;
        let id = index.and_then(|i| self.values.get(i).copied());
        id.ok_or_else(|| format!("{word} is not defined above"))
    }

    fn ty(&self, word: &str) -> Read<Type> {
        let fail = || format!("{word} is no type");
        let (dtype, rest) = word.split_once('[').ok_or_else(fail)?;
        let (dims, quant) = rest.split_once(']').ok_or_else(fail)?;
        let dims = dims.split(',').filter(|d| !d.is_empty());
        let quant = match quant {
            "" => None,
            q => {
                let index = q.strip_prefix(":q").ok_or_else(fail)?;
                let known = self.quants.get(number::<usize>(index)?).copied();
                Some(known.ok_or_else(|| format!("{q} is not defined above"))?)
            }
        };
        Ok(Type {
            dtype: DType::from_name(dtype).ok_or_else(fail)?,
            shape: dims.map(number).collect::<Read<_>>()?,
            quant,
        })
    }
}

fn number<T: FromStr>(word: &str) -> Read<T> {
    word.parse()
        .map_err(|_| format!("{word} is no number here"))
}

fn scale(word: &str) -> Read<Dyadic> {
    let (m, c) = word
        .split_once("/2^")
        .ok_or_else(|| format!("{word} is no scale"))?;
    Dyadic::new(number(m)?, number(c)?).map_err(|e| e.to_string())
}

fn elements<'a>(dtype: DType, words: impl Iterator<Item = &'a str>) -> Read<Data> {
    macro_rules! read {
        ($($variant:ident)*) => {
            match dtype {
                $(DType::$variant => Data::$variant(words.map(number).collect::<Read<_>>()?),)*
            }
        };
    }
    Ok(read!(F32 F64 Bool I8 U8 I16 U16 I32 U32 I64 U64))
}

/// What is left of a line.
struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    fn word(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn some(&mut self, what: &str) -> Read<&'a str> {
        self.word()
            .ok_or_else(|| format!("the line ends, expected {what}"))
    }

    fn number<T: FromStr>(&mut self) -> Read<T> {
        number(self.some("a number")?)
    }

    fn expect(&mut self, word: &str) -> Read<()> {
        match self.word() {
            Some(found) if found == word => Ok(()),
            found => Err(format!(
                "expected {word}, found {}",
                found.unwrap_or("the end")
            )),
        }
    }

    fn starts(&self, with: &str) -> bool {
        self.0.trim_start().starts_with(with)
    }

    fn json<T: DeserializeOwned>(&mut self) -> Read<T> {
        let mut stream = serde_json::Deserializer::from_str(self.0).into_iter::<T>();
        let read = stream.next().ok_or("the line ends too early")?;
        let read = read.map_err(|e| e.to_string())?;
        self.0 = &self.0[stream.byte_offset()..];
        Ok(read)
    }

    fn rest(self) -> impl Iterator<Item = &'a str> {
        self.0.split_whitespace()
    }

    fn end(&mut self) -> Read<()> {
        self.word()
            .map_or(Ok(()), |w| Err(format!("expected the end, found {w}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"graph "a \"net\""
q0 = zero -3 axis none scales 1073741824/2^36
q1 = zero 0 axis 0 scales 1073741824/2^30 1610612736/2^31
%0 = input "x" f32[1,2]
%1 = const "odd" f32[5] NaN inf -inf -0.0 1.1754944e-38
%2 = const "codes" i8[2,1]:q1 -128 127
%3 = const "mask" bool[2] true false
%4 = {"Cast":{"to":"i8"}} %3 "bits" i8[2]:q0
%5 = {"Unary":"relu"} %0 "r" f32[1,2]
%6 = const "m" f32[2,1] 0.5 2.0
%7 = {"MatMul":null} %5 %6 "y" f32[1,1]
output "y" %7
"#;

    #[test]
    fn a_printed_graph_is_what_it_was_parsed_from() {
        let graph = parse(TEXT).unwrap();
        assert_eq!(graph.to_string(), TEXT);
        assert_eq!(graph.nodes().len(), 3);
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (from, to, line, word) in [
            ("f32[1,1]", "f32[1,2]", 11, "gives f32[1,1]"),
            ("%5 %6", "%5 %9", 11, "%9"),
            ("-128 127", "-129 127", 6, "-129"),
            ("-128 127", "-128", 6, "1 elements"),
            ("i8[2,1]:q1", "i8[2,1]:q7", 6, "q7"),
            ("relu", "rely", 9, "rely"),
            ("%5 =", "%6 =", 9, "%5"),
            ("1073741824/2^36", "3/2^36", 2, "dyadic"),
            ("axis none", "axis", 2, "number"),
            ("output \"y\" %7", "output \"y\" %7 %6", 12, "end"),
        ] {
            let error = parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.message.contains(word), "{error}");
        }
    }
}
