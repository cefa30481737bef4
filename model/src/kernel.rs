//! One source per kernel, compiled for each instruction set, chosen at run time.
//!
//! Builds target generic x86-64, so wide vectors must be asked for function by function. `per_isa!` compiles the same
//! safe Rust body three times. Rust never contracts or reorders floating-point operations, and `mul_add` is one
//! rounding everywhere, so all versions give the same bits; where the CPU has no FMA, `mul_add` is a slow library call.

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Whatever the build targets.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest set that this CPU has. The standard library caches the answer.
    #[inline]
    pub(crate) fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                return Isa::Avx512;
            }
            return Isa::Avx2;
        }
        Isa::Portable
    }
}

/// Defines a function whose body is compiled once per [`Isa`] and dispatched on each call.
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        // A kernel takes its operands one by one; bundling them would only move the count elsewhere.
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
            fn avx512($($arg: $ty),*) {
                body($($arg),*)
            }

            match $crate::kernel::Isa::detected() {
                $crate::kernel::Isa::Portable => body($($arg),*),
                // SAFETY: `detected` returns this variant only on a CPU that has the function's features.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::kernel::Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::kernel::Isa::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use per_isa;
