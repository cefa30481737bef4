//! Reading `config.json`: what this forward would silently compute wrongly is refused.

use candle_transformers::models::llama::LlamaConfig;
use serde_json::{Map, Value, json};

use crate::ModelError;

/// Keys that change a model's numbers in ways that this forward does not know, and the value at which they change nothing.
/// Null changes nothing anywhere. (`pretraining_tp` is not among them: it divides a matrix product into parts with the same
/// sum.)
const NEUTRAL: [(&str, Value); 21] = [
    ("attention_bias", Value::Bool(false)),
    ("mlp_bias", Value::Bool(false)),
    ("qkv_bias", Value::Bool(false)),
    ("use_bias", Value::Bool(false)),
    ("use_qk_norm", Value::Bool(false)),
    ("qk_norm", Value::Bool(false)),
    ("use_mrope", Value::Bool(false)),
    ("alibi", Value::Bool(false)),
    ("parallel_attn", Value::Bool(false)),
    ("partial_rotary_factor", ONE),
    ("rotary_pct", ONE),
    ("logit_scale", ONE),
    ("logits_scaling", ONE),
    ("embedding_multiplier", ONE),
    ("residual_multiplier", ONE),
    ("attention_multiplier", Value::Null),
    ("query_pre_attn_scalar", Value::Null),
    ("attn_logit_softcapping", Value::Null),
    ("final_logit_softcapping", Value::Null),
    ("no_rope_layers", Value::Null),
    ("quantization_config", Value::Null),
];

/// Stands for the number 1 in [`NEUTRAL`], however it is written.
const ONE: Value = Value::Bool(true);

/// What llama3's scaling of positions needs.
const LLAMA3: [&str; 4] = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];

/// Parses `config.json`. `origin` names it in errors.
pub(crate) fn parse_config(json: &[u8], origin: &str) -> Result<LlamaConfig, ModelError> {
    let refuse = |reason: String| ModelError::Config { origin: origin.to_owned(), reason };
    let raw: Value = serde_json::from_slice(json).map_err(|e| refuse(format!("not a JSON configuration: {e}")))?;
    let Value::Object(mut raw) = raw else { return Err(refuse("not a JSON object".to_owned())) };
    raw.retain(|_, value| !value.is_null());
    refuse_unknown_arithmetic(&raw).map_err(refuse)?;
    read_positions(&mut raw).map_err(refuse)?;
    let head_dim = raw.get("head_dim").cloned();
    let config: LlamaConfig = serde_json::from_value(Value::Object(raw)).map_err(|e| refuse(e.to_string()))?;
    if let Some(dim) = head_dim {
        let heads = config.num_attention_heads;
        let product = dim.as_u64().and_then(|dim| usize::try_from(dim).ok()?.checked_mul(heads));
        if product != Some(config.hidden_size) {
            return Err(refuse(format!(
                "head_dim {dim} × num_attention_heads {heads} differs from hidden_size {}, which is not supported",
                config.hidden_size
            )));
        }
    }
    Ok(config)
}

fn refuse_unknown_arithmetic(raw: &Map<String, Value>) -> Result<(), String> {
    if let Some(kind) = raw.get("model_type").filter(|kind| *kind != "llama") {
        return Err(format!("model_type `{}` is not supported, only `llama` is", shown(kind)));
    }
    for key in ["hidden_act", "hidden_activation"] {
        if let Some(act) = raw.get(key).filter(|act| *act != "silu" && *act != "swish") {
            return Err(format!("{key} `{}` is not supported, only `silu` is", shown(act)));
        }
    }
    for (key, neutral) in &NEUTRAL {
        let Some(value) = raw.get(*key) else { continue };
        let same = if *neutral == ONE { value.as_f64() == Some(1.0) } else { value == neutral };
        if !same {
            return Err(format!("{key} = {value} is not supported"));
        }
    }
    // A window as long as the context hides nothing.
    let context = raw.get("max_position_embeddings").and_then(Value::as_u64);
    if let Some(window) = raw.get("sliding_window")
        && raw.get("use_sliding_window") != Some(&Value::Bool(false))
        && (context.is_none() || window.as_u64() < context)
    {
        return Err(format!("sliding_window = {window} is not supported"));
    }
    if let Some(layers) = raw.get("layer_types")
        && !layers.as_array().is_some_and(|layers| layers.iter().all(|layer| layer == "full_attention"))
    {
        return Err("layer_types other than `full_attention` are not supported".to_owned());
    }
    Ok(())
}

/// Brings the keys of rotary positions, `rope_theta` and `rope_scaling` or the newer `rope_parameters`, to the older form.
fn read_positions(raw: &mut Map<String, Value>) -> Result<(), String> {
    let mut theta = raw.get("rope_theta").cloned();
    let mut scaling = None;
    if let Some(given) = raw.remove("rope_scaling") {
        scaling = Some(read_scaling("rope_scaling", &given)?);
    }
    if let Some(given) = raw.remove("rope_parameters") {
        let newer = read_scaling("rope_parameters", &given)?;
        if scaling.as_ref().is_some_and(|older| *older != newer) {
            return Err("rope_scaling and rope_parameters say different things".to_owned());
        }
        scaling = Some(newer);
        if let Some(newer) = given.get("rope_theta").filter(|value| !value.is_null()) {
            if theta.as_ref().is_some_and(|older| older.as_f64() != newer.as_f64()) {
                return Err("rope_theta and rope_parameters.rope_theta differ".to_owned());
            }
            theta = Some(newer.clone());
        }
    }
    if let Some(theta) = theta {
        if !theta.as_f64().is_some_and(|theta| theta > 0.0 && theta <= f64::from(f32::MAX)) {
            return Err(format!("rope_theta = {theta} must be a number above 0"));
        }
        raw.insert("rope_theta".to_owned(), theta);
    }
    if let Some(scaling) = scaling.flatten() {
        raw.insert("rope_scaling".to_owned(), scaling);
    }
    Ok(())
}

/// The scaling that `given` says, in the form that candle-transformers reads; `None` for none.
fn read_scaling(key: &str, given: &Value) -> Result<Option<Value>, String> {
    let Some(given) = given.as_object() else { return Err(format!("{key} must be an object, not {given}")) };
    let given: Map<String, Value> =
        given.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())).collect();
    let kind = given.get("rope_type").or_else(|| given.get("type"));
    let kind = match kind {
        // The newer form may leave the kind out where it is the usual one.
        None if key == "rope_parameters" && LLAMA3.iter().all(|factor| !given.contains_key(*factor)) => {
            "default".into()
        }
        None => "(none)".to_owned(),
        Some(kind) => shown(kind),
    };
    if kind != "default" && kind != "llama3" {
        return Err(format!("{key} type `{kind}` is not supported, only `llama3` and `default` are"));
    }
    for (name, value) in &given {
        let known = ["rope_type", "type"].contains(&name.as_str())
            || LLAMA3.contains(&name.as_str())
            || (key == "rope_parameters" && name == "rope_theta")
            || (name == "partial_rotary_factor" && value.as_f64() == Some(1.0));
        if !known {
            return Err(format!("{key}.{name} = {value} is not supported"));
        }
    }
    if kind == "default" {
        // Factors beside this kind are read by nobody.
        return Ok(None);
    }
    let mut scaling = json!({"rope_type": "llama3"});
    for factor in LLAMA3 {
        let value = given.get(factor).ok_or_else(|| format!("{key} of type `llama3` needs {factor}"))?;
        if !value.as_f64().is_some_and(|value| value > 0.0) {
            return Err(format!("{key}.{factor} = {value} must be a number above 0"));
        }
        scaling[factor] = value.clone();
    }
    Ok(Some(scaling))
}

/// A value in a message: a text without its quotes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
