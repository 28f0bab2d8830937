//! A thin layer over LLVM's builder: every value is an integer, a vector of integers or a pointer.

use inkwell::IntPredicate;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::llvm_sys::core as llvm;
use inkwell::llvm_sys::prelude::{LLVMBuilderRef, LLVMTypeRef, LLVMValueRef};
use inkwell::module::{Linkage, Module};
use inkwell::types::{AsTypeRef, BasicMetadataTypeEnum, BasicType, BasicTypeEnum};
use inkwell::values::{AsValueRef, BasicValue, BasicValueEnum, FunctionValue, PointerValue};
use lowbit_kernel::{Scalar, Type};
use std::ffi::c_char;

pub(crate) type V<'c> = BasicValueEnum<'c>;

type Binary =
    unsafe extern "C" fn(LLVMBuilderRef, LLVMValueRef, LLVMValueRef, *const c_char) -> LLVMValueRef;
type Cast =
    unsafe extern "C" fn(LLVMBuilderRef, LLVMValueRef, LLVMTypeRef, *const c_char) -> LLVMValueRef;

const POSITIONED: &str = "the builder stands in a block";

pub(crate) struct Generator<'c> {
    pub(crate) context: &'c Context,
    pub(crate) module: Module<'c>,
    pub(crate) builder: Builder<'c>,
}

macro_rules! binaries {
    ($($name:ident $function:ident,)*) => {
        $(pub(crate) fn $name(&self, a: V<'c>, b: V<'c>) -> V<'c> {
            self.binary(llvm::$function, a, b)
        })*
    };
}

impl<'c> Generator<'c> {
    pub(crate) fn new(context: &'c Context, module: Module<'c>) -> Self {
        Self {
            context,
            module,
            builder: context.create_builder(),
        }
    }

    pub(crate) fn ty(&self, ty: Type) -> BasicTypeEnum<'c> {
        let scalar = match ty.scalar {
            Scalar::I8 => self.context.i8_type(),
            Scalar::I16 => self.context.i16_type(),
            Scalar::I32 => self.context.i32_type(),
            Scalar::I64 => self.context.i64_type(),
        };
        if ty.is_vector() {
            scalar.vec_type(ty.lanes.into()).into()
        } else {
            scalar.into()
        }
    }

    pub(crate) fn constant(&self, ty: Type, x: i64) -> V<'c> {
        let lane = self.ty(ty.lane()).into_int_type().const_int(x as u64, true);
        match ty.is_vector() {
            false => lane.into(),
            true => inkwell::types::VectorType::const_vector(&vec![lane; ty.lanes.into()]).into(),
        }
    }

    pub(crate) fn constant_lanes(&self, ty: Type, xs: &[i64]) -> V<'c> {
        let int = self.ty(ty.lane()).into_int_type();
        let lanes: Vec<_> = xs.iter().map(|&x| int.const_int(x as u64, true)).collect();
        if ty.is_vector() {
            inkwell::types::VectorType::const_vector(&lanes).into()
        } else {
            lanes[0].into()
        }
    }

    fn binary(&self, build: Binary, a: V<'c>, b: V<'c>) -> V<'c> {
        assert_eq!(a.get_type(), b.get_type(), "operands of one type");
        // SAFETY: the builder stands in a block, both values are integers of one type in its context.
        unsafe {
            V::new(build(
                self.builder.as_mut_ptr(),
                a.as_value_ref(),
                b.as_value_ref(),
                c"".as_ptr(),
            ))
        }
    }

    binaries! {
        add LLVMBuildAdd,
        sub LLVMBuildSub,
        mul LLVMBuildMul,
        and LLVMBuildAnd,
        or LLVMBuildOr,
        xor LLVMBuildXor,
        shl LLVMBuildShl,
        ashr LLVMBuildAShr,
        lshr LLVMBuildLShr,
        udiv LLVMBuildUDiv,
    }

    fn cast(&self, build: Cast, v: V<'c>, ty: Type) -> V<'c> {
        // SAFETY: the builder stands in a block, value and type belong to its context; callers keep LLVM's rules on widths.
        unsafe {
            V::new(build(
                self.builder.as_mut_ptr(),
                v.as_value_ref(),
                self.ty(ty).as_type_ref(),
                c"".as_ptr(),
            ))
        }
    }

    pub(crate) fn bitcast(&self, v: V<'c>, ty: Type) -> V<'c> {
        self.cast(llvm::LLVMBuildBitCast, v, ty)
    }

    pub(crate) fn zext(&self, v: V<'c>, ty: Type) -> V<'c> {
        self.cast(llvm::LLVMBuildZExt, v, ty)
    }

    pub(crate) fn sext(&self, v: V<'c>, ty: Type) -> V<'c> {
        self.cast(llvm::LLVMBuildSExt, v, ty)
    }

    pub(crate) fn trunc(&self, v: V<'c>, ty: Type) -> V<'c> {
        self.cast(llvm::LLVMBuildTrunc, v, ty)
    }

    pub(crate) fn select(
        &self,
        holds: IntPredicate,
        a: V<'c>,
        b: V<'c>,
        x: V<'c>,
        y: V<'c>,
    ) -> V<'c> {
        let builder = self.builder.as_mut_ptr();
        // SAFETY: the builder stands in a block; a and b have one type, x and y too, with as many lanes.
        unsafe {
            let which = llvm::LLVMBuildICmp(
                builder,
                holds.into(),
                a.as_value_ref(),
                b.as_value_ref(),
                c"".as_ptr(),
            );
            V::new(llvm::LLVMBuildSelect(
                builder,
                which,
                x.as_value_ref(),
                y.as_value_ref(),
                c"".as_ptr(),
            ))
        }
    }

    pub(crate) fn shuffle(&self, a: V<'c>, b: V<'c>, lanes: &[u32]) -> V<'c> {
        let int = self.context.i32_type();
        let mask: Vec<_> = lanes
            .iter()
            .map(|&k| int.const_int(k.into(), false))
            .collect();
        let mask = inkwell::types::VectorType::const_vector(&mask);
        let built = self.builder.build_shuffle_vector(
            a.into_vector_value(),
            b.into_vector_value(),
            mask,
            "",
        );
        built.expect(POSITIONED).into()
    }

    pub(crate) fn extract(&self, v: V<'c>, lane: u64) -> V<'c> {
        let lane = self.context.i32_type().const_int(lane, false);
        self.builder
            .build_extract_element(v.into_vector_value(), lane, "")
            .expect(POSITIONED)
    }

    pub(crate) fn insert(&self, v: V<'c>, x: V<'c>, lane: u64) -> V<'c> {
        let lane = self.context.i32_type().const_int(lane, false);
        self.builder
            .build_insert_element(v.into_vector_value(), x, lane, "")
            .expect(POSITIONED)
            .into()
    }

    pub(crate) fn undefined(&self, ty: Type) -> V<'c> {
        self.ty(ty).into_vector_type().get_poison().into()
    }

    pub(crate) fn splat(&self, v: V<'c>, ty: Type) -> V<'c> {
        let one = self.insert(self.undefined(ty), v, 0);
        self.shuffle(one, one, &vec![0; ty.lanes.into()])
    }

    /// `len` lanes of a vector from `start`; a scalar where `len` is 1.
    pub(crate) fn slice(&self, v: V<'c>, start: u32, len: u32) -> V<'c> {
        match len {
            1 => self.extract(v, start.into()),
            _ => self.shuffle(v, v, &(start..start + len).collect::<Vec<_>>()),
        }
    }

    /// All lanes of vectors of one type, one after the other.
    pub(crate) fn concat(&self, parts: &[V<'c>]) -> V<'c> {
        match parts {
            [one] => *one,
            _ => {
                let (a, b) = parts.split_at(parts.len().next_power_of_two() / 2);
                let (a, b) = (self.concat(a), self.concat(b));
                let (m, n) = (
                    a.into_vector_value().get_type().get_size(),
                    b.into_vector_value().get_type().get_size(),
                );
                let wide = if m == n { b } else { self.widen(b, m) };
                self.shuffle(a, wide, &(0..m + n).collect::<Vec<_>>())
            }
        }
    }

    fn widen(&self, v: V<'c>, lanes: u32) -> V<'c> {
        let have = v.into_vector_value().get_type().get_size();
        self.shuffle(
            v,
            v,
            &(0..lanes).map(|k| k.min(have - 1)).collect::<Vec<_>>(),
        )
    }

    /// `pointer + bytes`, a constant.
    pub(crate) fn offset(&self, pointer: PointerValue<'c>, bytes: i64) -> PointerValue<'c> {
        match bytes {
            0 => pointer,
            _ => self.advance(pointer, self.constant(Type::I64, bytes)),
        }
    }

    /// `pointer + bytes`, an i64.
    pub(crate) fn advance(&self, pointer: PointerValue<'c>, bytes: V<'c>) -> PointerValue<'c> {
        // SAFETY: the verifier proved that addresses stay in their buffer, or the kernel's author vouches for a dynamic index.
        unsafe {
            self.builder.build_gep(
                self.context.i8_type(),
                pointer,
                &[bytes.into_int_value()],
                "",
            )
        }
        .expect(POSITIONED)
    }

    pub(crate) fn load(&self, ty: Type, pointer: PointerValue<'c>, align: u32) -> V<'c> {
        let v = self
            .builder
            .build_load(self.ty(ty), pointer, "")
            .expect(POSITIONED);
        let load = v.as_instruction_value().expect("a load is an instruction");
        load.set_alignment(align).expect("a power of two");
        v
    }

    pub(crate) fn load_pointer(&self, pointer: PointerValue<'c>) -> PointerValue<'c> {
        let ty = self.context.ptr_type(Default::default());
        self.builder
            .build_load(ty, pointer, "")
            .expect(POSITIONED)
            .into_pointer_value()
    }

    pub(crate) fn store(&self, v: V<'c>, pointer: PointerValue<'c>, align: u32) {
        let store = self.builder.build_store(pointer, v).expect(POSITIONED);
        store.set_alignment(align).expect("a power of two");
    }

    /// Calls an LLVM intrinsic by its full name.
    pub(crate) fn intrinsic(&self, name: &str, ty: Type, args: &[V<'c>]) -> V<'c> {
        let types: Vec<BasicMetadataTypeEnum<'c>> =
            args.iter().map(|a| a.get_type().into()).collect();
        let function = self.module.get_function(name).unwrap_or_else(|| {
            self.module
                .add_function(name, self.ty(ty).fn_type(&types, false), None)
        });
        let args: Vec<_> = args.iter().map(|&a| a.into()).collect();
        let call = self
            .builder
            .build_call(function, &args, "")
            .expect(POSITIONED);
        call.try_as_basic_value()
            .basic()
            .expect("the intrinsic returns a value")
    }

    /// Calls an LLVM intrinsic that gives no value back.
    pub(crate) fn instruction(&self, name: &str, args: &[V<'c>]) {
        let types: Vec<BasicMetadataTypeEnum<'c>> =
            args.iter().map(|a| a.get_type().into()).collect();
        let function = self.module.get_function(name).unwrap_or_else(|| {
            let ty = self.context.void_type().fn_type(&types, false);
            self.module.add_function(name, ty, None)
        });
        let args: Vec<_> = args.iter().map(|&a| a.into()).collect();
        self.builder
            .build_call(function, &args, "")
            .expect(POSITIONED);
    }

    pub(crate) fn prefetch(&self, pointer: PointerValue<'c>, locality: u8) {
        let int = self.context.i32_type();
        let types = [
            self.context.ptr_type(Default::default()).into(),
            int.into(),
            int.into(),
            int.into(),
        ];
        let name = "llvm.prefetch.p0";
        let function = self.module.get_function(name).unwrap_or_else(|| {
            self.module
                .add_function(name, self.context.void_type().fn_type(&types, false), None)
        });
        let number = |x: u8| int.const_int(x.into(), false).into();
        let args = [pointer.into(), number(0), number(locality), number(1)];
        self.builder
            .build_call(function, &args, "")
            .expect(POSITIONED);
    }

    pub(crate) fn flag(&self, name: &str, value: u64) -> Attribute {
        self.context
            .create_enum_attribute(Attribute::get_named_enum_kind_id(name), value)
    }

    pub(crate) fn word(&self, key: &str, value: &str) -> Attribute {
        self.context.create_string_attribute(key, value)
    }

    pub(crate) fn function(
        &self,
        name: &str,
        params: &[BasicMetadataTypeEnum<'c>],
        returns: Option<BasicTypeEnum<'c>>,
        linkage: Linkage,
    ) -> FunctionValue<'c> {
        let ty = match returns {
            Some(ty) => ty.fn_type(params, false),
            None => self.context.void_type().fn_type(params, false),
        };
        let function = self.module.add_function(name, ty, Some(linkage));
        for attribute in [
            self.flag("nounwind", 0),
            self.flag("noredzone", 0),
            self.word("no-builtins", ""),
        ] {
            function.add_attribute(AttributeLoc::Function, attribute);
        }
        function
    }
}
