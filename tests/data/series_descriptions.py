"""Series descriptions as scanners and sites write them, by the sequence that they mean.

Names of the vendors' protocols (Siemens `t1_mprage_sag_p2_iso`, GE `AX T1 FLAIR`, Philips `T1W_3D_TFE`) with what sites
add to them, in the languages that public collections show.
"""

DESCRIPTIONS = {
    "pre": """
        T1
        AX T1
        Ax T1
        AXIAL T1
        T1 AXIAL
        SAG T1
        Sag T1
        COR T1
        AX T1 SE
        SAG T1 SE
        AX T1 FLAIR
        Ax T1 FLAIR
        SAG T1 FLAIR
        Sag T1 FLAIR
        T1 FLAIR
        T1_FLAIR
        OAx T1 FLAIR
        AX T1 PRE
        AX T1 PRE GAD
        T1 pre contrast
        T1 PRE-CONTRAST
        T1 precontrast
        AX T1 W/O
        AX T1 W/O CONTRAST
        AX T1 WO
        AX T1 WO CONTRAST
        T1 without contrast
        T1 non-contrast
        T1 noncontrast
        T1 non con
        T1 no gad
        T1 C-
        T1 (C-)
        t1_se_tra
        t1_se_sag
        t1_tse_tra
        t1_fl2d_tra
        t1_fl2d_sag
        t1_mprage_sag_p2_iso
        t1_mprage_sag_p2_iso_1.0
        t1_mpr_sag_p2_iso
        t1_mpr_ns_sag_pat2_iso
        t1_mprage_tra_p2
        t1_space_sag_p2_iso
        t1_tirm_tra_dark-fluid
        t1_tirm_sag
        MPRAGE
        MPRAGE_SAG
        Sag MPRAGE
        SAG MP-RAGE
        MP-RAGE
        IR-FSPGR
        Sag IR-FSPGR
        SAG 3D FSPGR
        AX 3D SPGR
        Ax BRAVO
        SAG BRAVO
        Ax 3D T1 BRAVO
        T1W_SE
        T1W_TSE
        T1W_FFE
        T1W_IR
        T1W_3D_TFE
        T1W_3D_FFE
        sT1W_3D_TFE
        sT1W_3D_FFE
        3D_T1W_TFE
        T1_3D_TFE
        T1W_IR_TSE
        T1 SE nativ
        T1 tra nativ
        t1_se_tra_nativ
        T1 ohne KM
        T1 sans contraste
        T1 SIN CONTRASTE
        T1 senza mdc
        3DT1
        AXT1
        WIP T1W_3D_TFE SENSE
        T1 POST OP
        AX T1 REPEAT2
    """,
    "post": """
        AX T1 POST
        AX T1 POST GAD
        AX T1 POST GD
        AX T1 POST CONTRAST
        AXIAL T1 POST
        T1 AXIAL POST
        T1 POST
        T1 post-contrast
        T1 postcontrast
        AX T1 POST FS
        COR T1 POST
        Cor T1 POST GAD
        COR T1 POST CONTRAST
        SAG T1 POST GAD
        AX T1 FLAIR POST
        AX T1 FLAIR +C
        AX T1 +C
        AX T1+C
        Ax T1 + C
        AX T1 C+
        T1 C+
        T1+C
        T1 + GAD
        T1+GAD
        T1 +GD
        AX T1 GAD
        AX T1 GD
        T1 Gd
        T1GD
        T1C
        T1CE
        T1 CE
        t1_se_tra_KM
        t1_se_tra_km
        t1_tse_tra_KM
        T1 KM
        T1_KM
        t1_mprage_sag_p2_iso_KM
        T1 nach KM
        T1 MIT KM
        t1_mprage_sag_p2_iso_Gd
        t1_mprage_sag_p2_iso POST
        t1_mprage_tra_p2_ce
        t1_fl2d_tra_CE
        t1_space_sag_p2_iso_post
        T1 with contrast
        AX T1 W CONTRAST
        AX T1 W/ CONTRAST
        T1W_SE CONTRAST
        T1W_SE_GD
        T1W_3D_TFE GD
        T1W_3D_FFE CE
        sT1W_3D_TFE_GADO
        T1W_SE +C
        T1W_TSE_C
        ce-gd_T1w
        x_t1_post
        MPRAGE +GAD
        MPRAGE + C
        MPRAGE POST
        MPRAGE_POST_CONTRAST
        SAG MPRAGE POST
        Ax BRAVO POST
        Ax BRAVO +C
        SAG BRAVO GAD
        3D T1 POST (SPGR)
        AX 3D SPGR POST
        SAG 3D FSPGR +C
        AX FSPGR POST GAD
        T1 GADO
        T1 CON GADOLINIO
        T1 con contraste
        T1 avec contraste
        T1 con mdc
        AX T1 GADAVIST
        T1 Dotarem
        T1 TRA ENHANCED
        AX T1 FAT SAT POST GAD
        VIBE POST
        T1 VIBE FS KM
    """,
    "flair": """
        FLAIR
        AX FLAIR
        Ax FLAIR
        AXIAL FLAIR
        COR FLAIR
        SAG FLAIR
        AX T2 FLAIR
        Ax T2 FLAIR
        AX T2 FLAIR FS
        T2 FLAIR
        T2_FLAIR
        T2-FLAIR
        Ax T2 FLAIR PROPELLER
        SAG CUBE T2 FLAIR
        Sag CUBE FLAIR
        SAG T2 FLAIR CUBE
        3D FLAIR
        3D_FLAIR
        FLAIR_LongTR
        FLAIR_longTR SENSE
        3D_Brain_View_FLAIR
        sFLAIR
        VISTA FLAIR
        T2W_FLAIR
        T2W_FLAIR_SPIR
        T2W_3D_FLAIR
        t2_tirm_tra_dark-fluid
        t2_tirm_TRA_dark-fluid_3mm
        t2_tirm_tra_dark-fluid_FLAIR
        t2_tirm_sag
        t2_spc_da-fl_irprep_sag
        t2_space_dark-fluid_sag_p2_iso
        t2_space_flair_sag
        t2_flair_tra
        t2_blade_tra_dark-fluid
        FLAIR POST
        AX FLAIR POST GAD
        AX FLAIR +C
        FLAIR KM
        dark fluid tra
    """,
    "t2": """
        T2
        AX T2
        Ax T2
        AXIAL T2
        COR T2
        SAG T2
        AX T2 FSE
        AX T2 FRFSE
        Ax T2 FSE PROPELLER
        AX T2 PROPELLER
        FSE T2
        T2 AXIAL
        T2 TSE
        t2_tse_tra
        t2_tse_tra_320_4mm
        t2_tse_tra_p2
        t2_tse_cor
        t2_blade_tra
        t2_space_sag_p2_iso
        t2_spc_sag
        t2_haste_tra
        T2W_TSE
        T2W_TSE SENSE
        sT2W_TSE
        eT2W_TSE
        T2W_3D_TSE
        T2W_VISTA
        SAG CUBE T2
        AX FRFSE
        AX SSFSE
        T2 FAT SAT
        AX T2 FS
        AX T2 POST GAD
        T2 tra nach KM
        WIP T2W_TSE
        AXT2
    """,
    "series": """
        LOCALIZER
        3 Plane Localizer
        3-plane Loc
        SURVEY
        Scout
        AX DWI
        Ax DWI b1000
        ep2d_diff_3scan_trace_p2
        ep2d_diff_3scan_trace_p2_ADC
        DTI 30 dir
        Apparent Diffusion Coefficient ADC
        ADC
        SWI_Images
        SWAN
        Mag_Images GRE
        AX GRE
        AX T2* GRE
        AX T2 GRE
        T2W_FFE
        t2_fl2d_tra_hemo
        T2 STAR
        3D TOF MRA
        AX TOF
        MRV
        ep2d_perf_p2
        DSC PERFUSION
        relCBV
        ASL
        BOLD
        Ax CISS
        FIESTA
        COR STIR
        SPECTRO
        PD
        AX PD
        PD/T2 DUAL ECHO
        T1 MAP
        SUBTRACTION
        T1 SUB
    """,
}
